"""One contract, every engine: the fake, docker and podman by command line and by socket, nerdctl, process."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path

import pytest

from deployer.engines import open_engine
from deployer.engines.argv import ArgvEngine
from deployer.engines.base import Engine, Images
from deployer.engines.dialects import NERDCTL, dialect_of
from deployer.engines.process import ProcessEngine
from deployer.engines.sdk import SdkEngine
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.host.gather import ceiling
from deployer.host.runner import Completed, Runner
from deployer.plan.drift import strayed
from deployer.plan.limits import restart_policy
from deployer.render import Directory, run_script
from deployer.spec import (
    LABEL_NAME,
    BuildRequest,
    ContainerSpec,
    EngineInfo,
    EngineName,
    Features,
    Image,
    Limits,
    Mount,
    NetworkMode,
    Port,
    State,
    features,
)
from tests.engines import BASE, need
from tests.fake_engine import FakeEngine
from tests.plain_devpi import free_port

TAG = "localhost/deployer-contract-test:4"
# Says what it was given, greets whoever connects, lives until it is told to stop, and says how.
PROGRAM = """
import signal, socket, sys, time
def stop(number, frame):
    print('stopped by', signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
print('started', flush=True)
for word in sys.argv[1:]:
    print('word', word, flush=True)
if sys.argv[-1] == 'end':
    sys.exit(4)
if sys.argv[-1] == 'greet':
    with socket.create_server(('', 3141)) as server:
        while True:
            server.accept()[0].sendall(b'hello')
time.sleep(600)
"""
SECONDS = timedelta(seconds=60)
TELLS = ("fake", "docker", "docker-socket", "podman", "podman-socket")
"""The engines that report how a container is set up."""
STAND_IN = Path(__file__).parents[1] / "supervised_program.py"


@dataclass
class Bench:
    """An engine, the image of the tests on it, and names of its own."""

    engine: Engine
    image: str
    tmp_path: Path
    prefix: str
    kind: str

    def spec(self, **changes: object) -> ContainerSpec:
        name = f"{self.prefix}-a"
        made = ContainerSpec(
            name=name,
            image=self.image,
            command=("one", "two words", "$HOME", "it's"),
            env=(("GREETING", "hello 'you' $HOME"),),
            labels=((LABEL_NAME, name), ("odd", "a=b, c")),
            tmpfs=("/tmp:rw,noexec,nosuid,nodev,size=8m",),
            ports=(Port(host_ip="127.0.0.1", host_port=free_port(), container_port=3141),),
            network=NetworkMode.BRIDGE if self.features.bridge else NetworkMode.HOST,
            user="12345:12345",
            limits=Limits(memory="64m", pids=32, nofile=512, nproc=self.nproc),
            restart=restart_policy("unless-stopped", self.info),
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    @cached_property
    def info(self) -> EngineInfo:
        return self.engine.probe()

    @property
    def images(self) -> Images:
        """The images of the engine; the test is skipped where it has none."""
        self.need("images")
        assert self.engine.images is not None
        return self.engine.images

    @property
    def features(self) -> Features:
        return features(self.engine.name)

    def need(self, feature: str) -> None:
        """Skip the test on an engine without it."""
        if not getattr(self.features, feature):
            pytest.skip(f"{self.kind} has no {feature}")

    def logs(self, name: str, **options: object) -> Iterator[str]:
        """What the program said; the supervisor of a process has lines of its own in the same log."""
        lines = self.engine.logs(name, **options)  # type: ignore[arg-type]
        return (line for line in lines if not line.startswith("supervisor: "))

    def server_pid(self, name: str) -> int | None:
        """The process of the program, which is a child of the supervisor where that is what the engine names."""
        found = self.engine.inspect(name)
        if found is None or self.features.containers or not found.pid:
            return found.pid if found else None
        children = Path(f"/proc/{found.pid}/task/{found.pid}/children").read_text().split()
        return int(children[0]) if children else None

    @property
    def stop_line(self) -> str:
        """What the program says when it is stopped: a process gets no signal of its own choice."""
        return f"stopped by {'SIGINT' if self.features.containers else 'SIGTERM'}"

    @property
    def nproc(self) -> int:
        """As a plan has it: podman's own default is more than a root without CAP_SYS_RESOURCE may give."""
        most = ceiling()
        return most.nproc if most and self.kind.startswith("podman") else 0

    def wait_line(self, name: str, line: str) -> list[str]:
        deadline = time.monotonic() + 180
        lines: list[str] = []
        while time.monotonic() < deadline:
            lines = list(self.logs(name))
            if line in lines:
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{line!r} never came: {lines}")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("context")
    (directory / "program.py").write_text(PROGRAM)
    (directory / "Dockerfile").write_text(
        f'FROM {BASE}\nCOPY program.py /program.py\nSTOPSIGNAL SIGINT\nENTRYPOINT ["python3", "/program.py"]\n'
    )
    return directory


@contextlib.contextmanager
def podman_service(directory: Path) -> Iterator[str]:
    """Where podman speaks Docker's API meanwhile."""
    path = directory / "podman.sock"
    path.unlink(missing_ok=True)
    words = ("podman", "system", "service", "--time=0", f"unix://{path}")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    try:
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                break
            assert time.monotonic() < deadline, "podman system service does not listen"
            time.sleep(0.05)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()


@cache
def podman_socket() -> str:
    """The service of all tests, which ends with them."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="deployer-podman-"))
    return stack.enter_context(podman_service(Path(directory)))


def cgroup_value(pid: int, controller: str, unified: str, legacy: str) -> str:
    """What the kernel holds a process to, in either version of control groups (cgroups(7))."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if controller in names.split(","):
            where = (top / path.lstrip("/") / legacy for top in Path("/sys/fs/cgroup").glob(f"*{controller}*"))
            return next(value for value in where if value.exists()).read_text().strip()
        own = Path("/sys/fs/cgroup") / path.lstrip("/") / unified
        if number == "0" and own.exists():
            return own.read_text().strip()
    raise AssertionError(f"process {pid} is in no control group of {controller}")


def greeting(port: int) -> bytes:
    """What the program says to whoever comes by a published port, as soon as it listens."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            if said := client.recv(100):
                return said
        assert time.monotonic() < deadline, f"nobody greets at port {port}"
        time.sleep(0.05)


def make(kind: str, context: Path, tmp_path: Path) -> tuple[Engine, str]:
    if kind == "fake":
        return FakeEngine(stock={TAG: Image(id="sha256:1", ref=TAG)}), TAG
    if kind == "process":
        need(kind)
        server = (sys.executable, str(STAND_IN), str(context / "program.py"))
        return ProcessEngine(tmp_path / "state", server=server), TAG
    name = kind.partition("-")[0]
    need(name)
    engine: Engine
    match kind:
        case "docker-socket":
            engine = SdkEngine()
        case "podman-socket":
            engine = SdkEngine(socket=podman_socket())
        case _:
            dialect = dialect_of(EngineName(name))
            assert dialect is not None
            engine = ArgvEngine(dialect)
    assert engine.images is not None
    if engine.images.find(TAG) is None:
        engine.images.build(BuildRequest(context=context, tag=TAG), lambda line: None)
    return engine, TAG


@pytest.fixture(
    params=[
        "fake",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("docker-socket", marks=pytest.mark.docker),
        pytest.param("podman", marks=pytest.mark.podman),
        pytest.param("podman-socket", marks=pytest.mark.podman),
        pytest.param("nerdctl", marks=pytest.mark.nerdctl),
        "process",
    ]
)
def bench(request: pytest.FixtureRequest, context: Path, tmp_path: Path) -> Iterator[Bench]:
    engine, image = make(request.param, context, tmp_path)
    made = Bench(
        engine=engine,
        image=image,
        tmp_path=tmp_path,
        prefix=f"deployer-contract-{uuid.uuid4().hex[:8]}",
        kind=request.param,
    )
    try:
        yield made
    finally:
        for suffix in ("a", "b"):
            with contextlib.suppress(EngineError):
                engine.remove(f"{made.prefix}-{suffix}")


class TestContract:
    def test_probe(self, bench: Bench) -> None:
        info = bench.engine.probe()
        assert info.name == bench.engine.name
        assert info.version[0].isdigit()

    def test_nothing_is_none(self, bench: Bench) -> None:
        assert bench.engine.inspect(f"{bench.prefix}-a") is None
        assert (bench.engine.images is not None) is bench.features.images
        if bench.engine.images is not None:
            assert bench.engine.images.find("localhost/deployer-no-such-image:0") is None
        bench.engine.remove(f"{bench.prefix}-a")
        bench.engine.volume_remove(f"{bench.prefix}-volume")

    def test_what_runs_is_what_was_specified(self, bench: Bench) -> None:
        spec = bench.spec()
        bench.engine.run(spec)
        found = bench.engine.inspect(spec.name)
        assert found is not None
        assert found.state is State.RUNNING
        assert found.ours
        assert found.name == spec.name
        assert set(spec.all_labels()) <= set(found.labels.items())
        assert found.ports == spec.ports
        assert found.network is spec.network
        assert found.image == spec.image
        assert strayed(spec, found) == ()
        lines = bench.wait_line(spec.name, "word it's")
        assert lines == ["started", "word one", "word two words", "word $HOME", "word it's"]
        assert list(bench.logs(spec.name, tail=1)) == ["word it's"]

    def test_what_differs_from_the_specification_is_seen(self, bench: Bench) -> None:
        """Where the engine tells it; none of these is compared on nerdctl, and a process is what its record says."""
        spec = bench.spec(restart="on-failure:3" if bench.kind != "nerdctl" else "no")
        bench.engine.run(spec)
        found = bench.engine.inspect(spec.name)
        assert found is not None
        others: dict[str, object] = {
            "restart policy": {"restart": "no"},
            "memory limit": {"limits": replace(spec.limits, memory="")},
            "pids limit": {"limits": replace(spec.limits, pids=33)},
            "CPU limit": {"limits": replace(spec.limits, cpus=1.5)},
            "user": {"user": "12345:1"},
            "read-only root": {"read_only": False},
            "variable GREETING": {"env": (("GREETING", "another"),)},
        }
        for name, changed in others.items():
            wanted = replace(spec, **changed)  # type: ignore[arg-type]
            lines = strayed(wanted, found)
            told = [name] if bench.kind in TELLS else []
            assert [line.partition(":")[0] for line in lines] == told
        mount = Mount(kind="bind", source="/other", target="/data")
        assert "mounts: none -> /other at /data" in strayed(replace(spec, mounts=(mount,)), found)
        assert any(line.startswith("command: ") for line in strayed(replace(spec, command=("x",)), found))

    def test_no_proxy_of_its_client_reaches_a_container_or_a_build(
        self, bench: Bench, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.need("images")
        proxy = "http://user:s3cret@127.0.0.1:9"
        (tmp_path / "config.json").write_text(
            json.dumps({"proxies": {"default": {"httpProxy": proxy, "httpsProxy": proxy, "allProxy": proxy}}})
        )
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        for name in ("HTTP_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        engine, _ = make(bench.kind, context, tmp_path)
        spec = bench.spec(withheld=engine.probe().injects)
        engine.run(spec)
        found = engine.inspect(spec.name)
        assert found is not None
        assert "s3cret" not in str(found)
        assert strayed(spec, found) == ()
        if bench.kind == "fake":
            return
        engine.remove(spec.name)
        assert engine.once(replace(spec, command=("end",), restart="no"), timeout=SECONDS).returncode == 4
        (tmp_path / "b").mkdir()
        (tmp_path / "b/Dockerfile").write_text(f"FROM {BASE}\nRUN echo $$ && ! env | grep s3cret\n")
        tag = f"localhost/{bench.prefix}:1"
        assert engine.images is not None
        engine.images.build(BuildRequest(context=tmp_path / "b", tag=tag), print)
        engine.images.remove(tag)

    def test_a_name_is_taken(self, bench: Bench) -> None:
        spec = bench.spec()
        bench.engine.run(spec)
        before = bench.engine.inspect(spec.name)
        with pytest.raises(ConflictError):
            bench.engine.run(replace(spec, ports=()))
        assert bench.engine.inspect(spec.name) == before

    def test_a_taken_port_leaves_nothing_behind(self, bench: Bench) -> None:
        bench.need("bridge")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = Port(host_ip="127.0.0.1", host_port=listener.getsockname()[1], container_port=3141)
            if bench.kind == "fake":
                bench.engine.run(bench.spec(name=f"{bench.prefix}-b", ports=(port,)))
            with pytest.raises(ConflictError):
                bench.engine.run(bench.spec(ports=(port,)))
        assert bench.engine.inspect(f"{bench.prefix}-a") is None

    def test_a_port_of_another_container_is_taken(self, bench: Bench) -> None:
        bench.need("bridge")
        port = Port(host_ip="127.0.0.1", host_port=free_port(), container_port=3141)
        bench.engine.run(bench.spec(name=f"{bench.prefix}-b", ports=(port,)))
        with pytest.raises(ConflictError):
            bench.engine.run(bench.spec(ports=(port,)))
        assert bench.engine.inspect(f"{bench.prefix}-a") is None

    def test_an_absent_image_is_not_pulled(self, bench: Bench) -> None:
        bench.need("images")
        with pytest.raises(ImageUnavailable):
            bench.engine.run(bench.spec(image="localhost/deployer-no-such-image:0"))
        assert bench.engine.inspect(f"{bench.prefix}-a") is None

    def test_stop_start_remove(self, bench: Bench) -> None:
        spec = bench.spec()
        bench.engine.run(spec)
        if bench.kind != "fake":
            bench.wait_line(spec.name, "started")
        bench.engine.stop(spec.name, timeout=SECONDS)
        stopped = bench.engine.inspect(spec.name)
        assert stopped is not None
        assert (stopped.state, stopped.exit_code) == (State.STOPPED, 0 if bench.features.containers else None)
        if bench.kind != "fake":
            assert bench.stop_line in list(bench.logs(spec.name))
        bench.engine.stop(spec.name, timeout=SECONDS)
        bench.engine.start(spec.name)
        bench.engine.start(spec.name)
        assert bench.engine.inspect(spec.name).state is State.RUNNING  # type: ignore[union-attr]
        bench.engine.remove(spec.name)
        assert bench.engine.inspect(spec.name) is None

    def test_a_published_port_leads_to_it_after_each_start(self, bench: Bench) -> None:
        """Also on an engine that has restarts of its own, which may start it at the same moment."""
        bench.need("bridge")
        if bench.kind == "fake":
            pytest.skip("nothing runs in the fake that could be reached")
        spec = bench.spec(command=("greet",))
        bench.engine.run(spec)
        assert greeting(spec.ports[0].host_port) == b"hello"
        for starts in (2, 3):
            bench.engine.stop(spec.name, timeout=SECONDS)
            bench.engine.start(spec.name)
            assert greeting(spec.ports[0].host_port) == b"hello"
            assert list(bench.engine.logs(spec.name)).count("started") == starts  # and nobody else has started it

    def test_rename(self, bench: Bench) -> None:
        spec, new = bench.spec(), f"{bench.prefix}-b"
        identity = bench.engine.run(spec)
        bench.engine.rename(spec.name, new)
        assert bench.engine.inspect(spec.name) is None
        found = bench.engine.inspect(new)
        assert found is not None
        assert found.id.startswith(identity[:12])
        with pytest.raises(EngineError):
            bench.engine.rename(f"{bench.prefix}-none", spec.name)

    def test_logs_since_and_follow(self, bench: Bench) -> None:
        if bench.kind == "fake":
            pytest.skip("the fake has no clock")
        spec = bench.spec()
        bench.engine.run(spec)
        everything = bench.wait_line(spec.name, "word it's")
        assert list(bench.logs(spec.name, since="10m")) == everything
        assert list(bench.logs(spec.name, since="2099-01-01T00:00:00Z")) == []
        following = bench.logs(spec.name, follow=True)
        assert [next(following) for _ in everything] == everything
        bench.engine.stop(spec.name, timeout=SECONDS)
        assert list(following) == [bench.stop_line]  # and it ends with the container

    def test_a_server_that_dies_is_started_again(self, bench: Bench) -> None:
        if bench.kind == "fake":
            pytest.skip("nothing runs in the fake that could die")
        spec = bench.spec()
        if spec.restart == "no":
            pytest.skip(f"{bench.kind} is on a containerd before 1.7, which would also start what was stopped")
        bench.engine.run(spec)
        bench.wait_line(spec.name, "started")
        died = bench.server_pid(spec.name)
        assert died is not None
        # What a rootless podman runs belongs to other users of its own.
        enter = ("podman", "unshare") if os.getuid() and bench.kind.startswith("podman") else ()
        subprocess.run([*enter, "kill", "-KILL", str(died)], check=True)
        deadline = time.monotonic() + 180
        while bench.server_pid(spec.name) in (None, died):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # Then it is being created, or runs.
        while list(bench.logs(spec.name)).count("started") < 2:  # before, it does not know the signal
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert bench.engine.inspect(spec.name).state is State.RUNNING  # type: ignore[union-attr]
        # Stopped by us, it stays so.
        bench.engine.stop(spec.name, timeout=SECONDS)
        assert bench.engine.inspect(spec.name).state is State.STOPPED  # type: ignore[union-attr]

    def test_a_loop_of_deaths_is_stopped_for_good(self, bench: Bench) -> None:
        """At whatever moment between a death and the next start it is told to stop."""
        if bench.kind == "fake":
            pytest.skip("nothing runs in the fake that could die")
        if bench.kind == "podman-socket":
            pytest.skip("Docker's API does not tell whether podman is about to start a container again")
        for _ in range(3 if bench.kind == "podman" else 1):
            bench.engine.run(bench.spec(command=("end",), ports=()))
            name = bench.spec().name
            deadline = time.monotonic() + 120
            while list(bench.logs(name)).count("started") < 2 and bench.spec().restart != "no":
                assert time.monotonic() < deadline
            bench.engine.stop(name, timeout=SECONDS)
            before = list(bench.engine.logs(name))
            for _ in range(10):
                assert bench.engine.inspect(name).state is State.STOPPED  # type: ignore[union-attr]
                time.sleep(0.1)  # nothing comes that could be waited for
            assert list(bench.engine.logs(name)) == before
            bench.engine.remove(name)

    def test_limits_hold(self, bench: Bench) -> None:
        bench.need("containers")
        if bench.kind == "fake":
            pytest.skip("nothing runs in the fake that could be limited")
        spec = bench.spec(limits=Limits(memory="64m", pids=32, nofile=512, nproc=bench.nproc, cpus=0.5))
        bench.engine.run(spec)
        found = bench.engine.inspect(spec.name)
        assert found is not None
        assert found.pid is not None
        files = next(
            line for line in Path(f"/proc/{found.pid}/limits").read_text().splitlines() if "open files" in line
        )
        assert files.split()[3:5] == ["512", "512"]
        assert cgroup_value(found.pid, "memory", "memory.max", "memory.limit_in_bytes") == str(64 << 20)
        assert cgroup_value(found.pid, "pids", "pids.max", "pids.max") == "32"
        quota, period = (
            cgroup_value(found.pid, "cpu", "cpu.max", name).split()[0 if name.endswith("quota_us") else -1]
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        assert int(quota) * 2 == int(period)

    def test_exec(self, bench: Bench) -> None:
        spec = bench.spec()
        bench.engine.run(spec)
        done = bench.engine.exec(spec.name, ("echo", "a b", "$HOME"))
        assert (done.returncode, done.stdout) == (0, "a b $HOME\n")
        if bench.kind != "fake":
            done = bench.engine.exec(spec.name, ("sh", "-c", "echo no >&2; exit 3"))
            assert (done.returncode, done.stderr) == (3, "no\n")
        assert bench.engine.exec(spec.name, ("no-such-program",)).returncode != 0

    @pytest.mark.parametrize("stdin", [b"", b"one\ntwo", bytes(range(32, 127)) * 20_000], ids=["none", "text", "2 MB"])
    def test_exec_reads_standard_input_to_its_end(self, bench: Bench, stdin: bytes) -> None:
        """More than a pipe holds, too, while the command writes it back."""
        spec = bench.spec()
        bench.engine.run(spec)
        done = bench.engine.exec(spec.name, ("cat",), stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, stdin.decode(), "")

    def test_exec_of_a_command_that_ignores_its_input(self, bench: Bench) -> None:
        """It ends with the command's own exit code. podman may lose the output (seen with 4.3, from 1,000 bytes on)."""
        spec = bench.spec()
        bench.engine.run(spec)
        done = bench.engine.exec(spec.name, ("echo", "done"), stdin=b"x" * 2_000_000)
        lost = bench.kind in ("podman", "podman-socket") and not done.stdout
        assert (done.returncode, done.stdout) == (0, "" if lost else "done\n")
        assert bench.engine.exec(spec.name, ("no-such-program",), stdin=b"x" * 2_000_000).returncode != 0

    def test_once_runs_to_the_end_and_leaves_nothing(self, bench: Bench) -> None:
        spec = bench.spec(command=("one", "end"), restart="no", ports=())
        for _ in range(2):
            done = bench.engine.once(spec, timeout=timedelta(seconds=60))
            assert (done.returncode, done.stdout.splitlines()) == (4, ["started", "word one", "word end"])
            assert bench.engine.inspect(spec.name) is None

    def test_once_takes_the_place_of_what_was_killed(self, bench: Bench) -> None:
        bench.engine.run(bench.spec(ports=()))
        spec = bench.spec(command=("end",), restart="no", ports=())
        assert bench.engine.once(spec, timeout=timedelta(seconds=60)).returncode == 4
        assert bench.engine.inspect(spec.name) is None

    def test_once_without_an_image_leaves_nothing(self, bench: Bench) -> None:
        bench.need("images")
        spec = bench.spec(image="localhost/deployer-absent:1", restart="no")
        with pytest.raises(ImageUnavailable):
            bench.engine.once(spec, timeout=timedelta(seconds=60))
        assert bench.engine.inspect(spec.name) is None

    def test_host_network_publishes_nothing(self, bench: Bench) -> None:
        spec = bench.spec(network=NetworkMode.HOST, ports=())
        bench.engine.run(spec)
        found = bench.engine.inspect(spec.name)
        assert found is not None
        assert (found.network, found.ports) == (NetworkMode.HOST, ())

    def test_mounts(self, bench: Bench) -> None:
        bench.need("volumes")
        bound = bench.tmp_path / "with, comma"
        bound.mkdir()
        mounts = (
            Mount(kind="bind", source=str(bound), target="/bound", read_only=True),
            Mount(kind="volume", source=f"{bench.prefix}-volume", target="/kept"),
        )
        spec = bench.spec(mounts=mounts)
        try:
            bench.engine.run(spec)
            found = bench.engine.inspect(spec.name)
            assert found is not None
            assert set(found.mounts) == set(mounts)
        finally:
            bench.engine.remove(spec.name)
            bench.engine.volume_remove(f"{bench.prefix}-volume")

    def test_a_volume_is_made_once_with_its_labels(self, bench: Bench) -> None:
        bench.need("volumes")
        name = f"{bench.prefix}-volume"
        assert bench.engine.volume(name) is None
        bench.engine.volume_create(name, {LABEL_NAME: "it", "odd": "a=b, c"})
        try:
            found = bench.engine.volume(name)
            assert found is not None
            assert (found.name, found.labels[LABEL_NAME], found.labels["odd"]) == (name, "it", "a=b, c")
            with pytest.raises(ConflictError):
                bench.engine.volume_create(name, {})
        finally:
            bench.engine.volume_remove(name)
        assert bench.engine.volume(name) is None

    def test_a_volume_in_use_is_not_removed(self, bench: Bench) -> None:
        bench.need("volumes")
        name = f"{bench.prefix}-volume"
        spec = bench.spec(mounts=(Mount(kind="volume", source=name, target="/kept"),))
        bench.engine.volume_create(name, {})
        try:
            bench.engine.run(spec)
            with pytest.raises(EngineError):
                bench.engine.volume_remove(name)
            assert bench.engine.volume(name) is not None
        finally:
            bench.engine.remove(spec.name)
            bench.engine.volume_remove(name)

    def test_containers_of_ours_are_listed_in_any_state(self, bench: Bench) -> None:
        one, other = bench.spec(), bench.spec(name=f"{bench.prefix}-b", ports=())
        other = replace(other, labels=((LABEL_NAME, other.name),))
        for spec in (one, other):
            bench.engine.run(spec)
        bench.engine.stop(other.name, timeout=SECONDS)
        found = {container.name: container.state for container in bench.engine.containers()}
        assert (found[one.name], found[other.name]) == (State.RUNNING, State.STOPPED)

    def test_a_failed_build_keeps_the_older_image(self, bench: Bench, context: Path) -> None:
        bench.need("images")
        before = bench.images.find(bench.image)
        broken = bench.tmp_path / "broken"
        broken.mkdir()
        (broken / "Dockerfile").write_text("FRM nothing\n")
        with pytest.raises(ImageUnavailable) as caught:
            bench.images.build(BuildRequest(context=broken, tag=bench.image), lambda line: None)
        assert caught.value.details
        # A docker without BuildKit begins each build with advice on how to get it, which is no reason of a failure.
        assert not [line for line in caught.value.details if not line.strip() or "buildx" in line or "DEPREC" in line]
        assert "can't be built: " in str(caught.value)
        assert bench.images.find(bench.image) == before

    def test_a_build_that_fails_in_a_step_leaves_no_container(self, bench: Bench) -> None:
        bench.need("images")
        if bench.kind == "fake":
            pytest.skip("the fake runs no steps")
        broken, client = bench.tmp_path / "broken", bench.kind.partition("-")[0]
        broken.mkdir()
        (broken / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo {bench.prefix} && exit 3\n")
        with pytest.raises(ImageUnavailable) as caught:
            bench.images.build(BuildRequest(context=broken, tag=f"localhost/{bench.prefix}:3"), lambda line: None)
        assert bench.prefix in "\n".join(caught.value.details)
        listed = subprocess.run([client, "ps", "--all", "--no-trunc"], capture_output=True, text=True, check=True)
        assert bench.prefix not in listed.stdout

    def test_images_are_listed_by_their_name_and_removed_unless_a_container_needs_them(self, bench: Bench) -> None:
        bench.need("images")
        context, repository = bench.tmp_path / "child", f"localhost/{bench.prefix}"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {bench.image if bench.kind != 'fake' else 'scratch'}\n")
        first, second = (
            bench.images.build(BuildRequest(context=context, tag=f"{repository}:{tag}", labels=(("n", tag),)), print)
            for tag in ("1", "2")
        )
        assert (first.names, second.names) == ((f"{repository}:1",), (f"{repository}:2",))
        assert bench.images.tags(repository) == (f"{repository}:1", f"{repository}:2")
        spec = bench.spec(image=f"{repository}:1")
        bench.engine.run(spec)
        assert not bench.images.remove(f"{repository}:1")
        assert bench.images.remove(f"{repository}:2")
        assert bench.images.tags(repository) == (f"{repository}:1",)
        bench.engine.stop(spec.name, timeout=SECONDS)
        assert not bench.images.remove(f"{repository}:1")
        bench.engine.remove(spec.name)
        assert bench.images.remove(f"{repository}:1")
        assert bench.images.tags(repository) == ()
        assert bench.images.remove(f"{repository}:1")  # it is gone already

    def test_an_image_whose_name_another_one_got_has_none(self, bench: Bench) -> None:
        bench.need("images")
        context, tag = bench.tmp_path / "child", f"localhost/{bench.prefix}:1"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {bench.image if bench.kind != 'fake' else 'scratch'}\n")
        former, latter = (
            bench.images.build(BuildRequest(context=context, tag=tag, labels=(("n", n),)), print) for n in "12"
        )
        assert former.id != latter.id
        left = bench.images.find(former.id)
        assert left is None or left.names == ()  # nerdctl keeps none without a name
        assert bench.images.remove(former.id)
        assert bench.images.find(former.id) is None
        assert bench.images.find(tag) == latter
        assert bench.images.remove(tag)

    def test_an_image_that_was_loaded(self, bench: Bench) -> None:
        """As on a host without a registry: what one engine has saved, another one loads."""
        bench.need("images")
        context, archive = bench.tmp_path / "small", bench.tmp_path / "image.tar"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        tag = f"localhost/{bench.prefix}:2"
        built = bench.images.build(BuildRequest(context=context, tag=tag, labels=(("a", "b c"),)), lambda line: None)
        try:
            bench.images.save(tag, archive)
            assert bench.images.remove(tag)
            assert bench.images.find(tag) is None
            with pytest.raises(ImageUnavailable):
                bench.engine.run(bench.spec(image=tag, ports=()))
            bench.images.load(archive)
            loaded = bench.images.find(tag)
            assert loaded is not None
            assert (loaded.id, loaded.labels) == (built.id, built.labels)
            archive.write_text("no image")
            with pytest.raises(EngineError):
                bench.images.load(archive)
            with pytest.raises(EngineError):
                bench.images.save(f"localhost/{bench.prefix}:none", archive)
        finally:
            bench.images.remove(tag)

    def test_build_labels_and_says_what_it_does(self, bench: Bench) -> None:
        bench.need("images")
        good = bench.tmp_path / "good"
        good.mkdir()
        (good / "Dockerfile").write_text(f"FROM {BASE}\nARG WORD\nLABEL word=$WORD\n")
        tag = f"localhost/{bench.prefix}:1"
        said: list[str] = []
        request = BuildRequest(context=good, tag=tag, labels=(("a", "b c"),), build_args=(("WORD", "x"),))
        image = bench.images.build(request, said.append)
        assert image.labels["a"] == "b c"
        assert said
        if bench.kind != "fake":
            assert image.labels["word"] == "x"
            subprocess.run([bench.kind.partition("-")[0], "rmi", tag], capture_output=True, check=True)


@pytest.mark.podman
def test_a_podman_service_that_is_killed_and_comes_back(context: Path, tmp_path: Path) -> None:
    """The container runs on, and the same client finds it again."""
    _, image = make("podman-socket", context, tmp_path)
    with tempfile.TemporaryDirectory(prefix="deployer-podman-") as directory:
        with podman_service(Path(directory)) as url:
            engine = SdkEngine(socket=url)
            prefix = f"deployer-contract-{uuid.uuid4().hex[:8]}"
            bench = Bench(engine=engine, image=image, tmp_path=tmp_path, prefix=prefix, kind="podman-socket")
            spec = bench.spec()
            engine.run(spec)
            bench.wait_line(spec.name, "started")
            before = engine.inspect(spec.name)
        for ask in (lambda: engine.inspect(spec.name), lambda: engine.probe(), lambda: list(engine.logs(spec.name))):
            with pytest.raises(EngineUnreachable) as caught:
                ask()
            assert caught.value.hint
        with podman_service(Path(directory)):
            try:
                assert engine.inspect(spec.name) == before
                engine.stop(spec.name, timeout=SECONDS)
                assert "stopped by SIGINT" in list(engine.logs(spec.name))
            finally:
                engine.remove(spec.name)


@pytest.mark.nerdctl
@pytest.mark.parametrize("bench", ["nerdctl"], indirect=True)
def test_whoever_was_killed_before_a_container_was_to_be_restarted(bench: Bench) -> None:
    """nerdctl is given the policy when all runs, and then may never be: that is no finished container."""

    class Killed(Runner):
        def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
            if "update" in argv:
                raise KeyboardInterrupt
            return super().run(argv, stdin=stdin, timeout=timeout)

    spec = bench.spec()
    if spec.restart == "no":
        pytest.skip("on a containerd before 1.7 no policy is kept")
    with pytest.raises(KeyboardInterrupt):
        ArgvEngine(NERDCTL, runner=Killed()).run(spec)
    assert bench.engine.inspect(spec.name).state is State.CREATED  # type: ignore[union-attr]
    bench.engine.start(spec.name)
    found = bench.engine.inspect(spec.name)
    assert found is not None
    assert (found.state, found.labels["containerd.io/restart.policy"]) == (State.RUNNING, spec.restart)


@pytest.mark.docker
class TestOneContainer:
    """What is printed is what is run: the same container, whoever made it."""

    @pytest.fixture
    def full(self, context: Path, tmp_path: Path) -> Iterator[ContainerSpec]:
        engine, image = make("docker", context, tmp_path)
        prefix = f"deployer-contract-{uuid.uuid4().hex[:8]}"
        (tmp_path / "data").mkdir()
        spec = Bench(engine=engine, image=image, tmp_path=tmp_path, prefix=prefix, kind="docker").spec(
            mounts=(Mount(kind="bind", source=str(tmp_path / "data"), target="/data"),),
            limits=Limits(memory="64m", pids=32, nofile=512, cpus=0.5),
        )
        try:
            yield spec
        finally:
            engine.remove(spec.name)

    def inspected(self, spec: ContainerSpec) -> dict[str, object]:
        """All of `inspect` that was asked for; what differs between any two containers left out."""
        import json

        raw = json.loads(subprocess.run(["docker", "inspect", spec.name], capture_output=True, check=True).stdout)[0]
        config = {
            key: value
            for key, value in raw["Config"].items()
            if key not in {"Hostname", "AttachStdout", "AttachStderr"}
        }
        config["Volumes"] = config.get("Volumes") or None
        host = dict(raw["HostConfig"])
        for key, value in host.items():
            if value in ([], {}, 0, "", False):  # written or left out, Docker means the same
                host[key] = None
        return {"Config": config, "HostConfig": host, "Mounts": raw["Mounts"], "Image": raw["Image"]}

    def test_a_script_makes_what_up_makes(self, full: ContainerSpec, tmp_path: Path) -> None:
        script = run_script(full, EngineName.DOCKER, directories=(Directory(path=tmp_path / "data"),))
        subprocess.run(["sh", "-c", script], capture_output=True, check=True)
        by_script = self.inspected(full)
        engine = open_engine(EngineName.DOCKER)
        engine.remove(full.name)
        engine.run(full)
        assert self.inspected(full) == by_script

    def test_the_socket_makes_what_the_command_line_makes(self, full: ContainerSpec) -> None:
        engine = open_engine(EngineName.DOCKER)
        engine.run(full)
        by_argv = self.inspected(full)
        engine.remove(full.name)
        SdkEngine().run(full)
        # The command line carries out --memory-swappiness=-1 and the like on its own; what was asked for is equal.
        by_socket = self.inspected(full)
        silent = {"MemorySwappiness", "ConsoleSize", "CgroupnsMode", "OomKillDisable", "ShmSize", "IpcMode"}
        for made in (by_argv, by_socket):
            made["HostConfig"] = {k: v for k, v in made["HostConfig"].items() if k not in silent}  # type: ignore[attr-defined]
        assert by_socket == by_argv

    def test_it_is_hardened(self, full: ContainerSpec) -> None:
        engine = open_engine(EngineName.DOCKER)
        engine.run(full)
        status = engine.exec(full.name, ("cat", "/proc/1/status")).stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {fields[key] for key in ("CapEff", "CapBnd", "CapPrm")} == {"0000000000000000"}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert fields["Uid"].split()[0] == "12345"
        assert engine.exec(full.name, ("touch", "/x")).returncode != 0
        assert engine.exec(full.name, ("touch", "/tmp/x")).returncode == 0
        listeners = subprocess.run(["docker", "port", full.name], capture_output=True, text=True, check=True).stdout
        assert listeners.split()[-1].startswith("127.0.0.1:")
