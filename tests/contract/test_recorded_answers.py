"""What engines answer, kept with their versions: read as the engine's binary would be, where there is none.

``recordings/`` has one file an engine and version; its ``origin`` says whether it was recorded or written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import Dialect, dialect_of
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.host.runner import Completed, ProcessFailed, Runner
from deployer.plan.drift import strayed
from deployer.spec import (
    LABEL_NAME,
    BuildRequest,
    ContainerSpec,
    EngineName,
    Limits,
    Mount,
    NetworkMode,
    Port,
    State,
)

RECORDINGS = Path(__file__).parent / "recordings"
BASE = "localhost/deployer-test-base:1"


SET_UP = ContainerSpec(
    name="rec-a",
    image=BASE,
    build="rec",
    command=("sleep", "100"),
    env=(("GREETING", "hello=you"),),
    labels=((LABEL_NAME, "rec-a"),),
    mounts=(Mount(kind="bind", source="/tmp", target="/data", read_only=True),),
    tmpfs=("/tmp:rw,noexec,nosuid,nodev,size=8m",),
    ports=(Port(host_ip="127.0.0.1", host_port=33141, container_port=3141),),
    user="12345:12345",
    restart="on-failure:3",
    limits=Limits(memory="64m", pids=32, nofile=512, nproc=9000, cpus=0.5),
)
"""What the answer ``inspect-set-up`` is about; docker's restart policy was changed to it by ``docker update``."""


class Replay(Runner):
    """Gives the answers of those names, in their order and the last for ever after, to whatever is run; nothing is run.

    What the engine says of itself is asked ``beside`` all that, in no order.
    """

    def __init__(self, answers: dict[str, Any], names: Sequence[str], *, beside: Sequence[str]) -> None:
        super().__init__()
        self._left = [answers[name] for name in names]
        self._beside, self._info = tuple(beside), answers.get("info", self._left[0])

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        if tuple(argv[1:]) == self._beside:
            answer = self._info
        else:
            answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return Completed(argv=tuple(argv), returncode=answer["code"], stdout=answer["stdout"], stderr=answer["stderr"])

    def stream(self, argv: Sequence[str], *, check: bool = True) -> Iterator[str]:
        done = self.run(argv)
        yield from (done.stdout + done.stderr).splitlines()
        if done.returncode:
            raise ProcessFailed(argv, done.returncode)


class Recorded:
    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        self.version: str = document["version"]
        self.origin: str = document["origin"]
        self.answers: dict[str, Any] = document["answers"]
        dialect = dialect_of(EngineName(document["engine"]))
        assert dialect is not None
        self.dialect: Dialect = dialect

    def engine(self, answer: str) -> ArgvEngine:
        return self.answering(answer, "container-absent")

    def answering(self, *names: str) -> ArgvEngine:
        return ArgvEngine(self.dialect, runner=Replay(self.answers, names, beside=self.dialect.info))

    def running(self, answer: str) -> ArgvEngine:
        """For a ``run`` that is answered so: an engine that guards no names is asked for the container before."""
        before = () if self.dialect.guards else ("container-absent",)
        return self.answering(*before, answer, "container-absent")


RECORDED = {path.stem: Recorded(path) for path in sorted(RECORDINGS.glob("*.json"))}


def of_those_with(*names: str) -> pytest.MarkDecorator:
    """A case for each of the answers ``names`` of every engine that has it: not every engine can fail in every way."""
    cases = [
        pytest.param(one, name, id=f"{stem}-{name}")
        for stem, one in RECORDED.items()
        for name in names
        if name in one.answers
    ]
    return pytest.mark.parametrize(("recorded", "answer"), cases)


def test_every_engine_with_a_command_line_is_recorded() -> None:
    assert {one.dialect.name for one in RECORDED.values()} == {name for name in EngineName if dialect_of(name)}


of_all = pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED.keys())


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded ran on another host."""
    for recorded in RECORDED.values():
        for name in recorded.dialect.elsewhere:
            monkeypatch.setenv(name, "unix:///elsewhere")


@of_all
def test_the_version(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / recorded.dialect.name).write_text("#!/bin/sh\n")
    (tmp_path / recorded.dialect.name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    info = recorded.engine("version").probe()
    assert info.version.removeprefix("v").startswith(recorded.version)
    assert info.how == str(tmp_path / recorded.dialect.name)


@of_all
def test_the_nature(recorded: Recorded) -> None:
    nature = recorded.dialect.nature(json.loads(recorded.answers["info"]["stdout"]))
    assert (nature.rootless, nature.unheld) == (False, ())
    if rootless := recorded.answers.get("info-rootless"):
        nature = recorded.dialect.nature(json.loads(rootless["stdout"]))
        assert (nature.rootless, nature.unheld) == (True, ("memory", "pids", "cpus"))


@of_all
def test_a_container(recorded: Recorded) -> None:
    found = recorded.engine("inspect").inspect("rec-a")
    assert found is not None
    assert (found.name, found.state, found.ours, found.image) == ("rec-a", State.RUNNING, True, BASE)
    assert found.ports == (Port(host_ip="127.0.0.1", host_port=33141, container_port=3141),)
    assert set(found.mounts) == {
        Mount(kind="bind", source="/tmp", target="/data"),
        Mount(kind="volume", source="rec-volume", target="/kept"),
    }
    assert found.network is NetworkMode.BRIDGE
    assert found.pid
    assert found.started_at
    assert found.image_id == "" or found.image_id.startswith("sha256:")
    # Whatever an engine takes for a match, only the very name is meant.
    assert recorded.engine("inspect").inspect("rec") is None


@of_all
def test_a_container_whose_processes_are_gone(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it this host, none of them would be there any more."""
    for name in recorded.dialect.elsewhere:
        monkeypatch.delenv(name)
    found = recorded.engine("inspect").inspect("rec-a")
    assert found is not None
    assert found.state is (State.LOST if recorded.dialect.monitor else State.RUNNING)


@of_those_with("inspect-set-up")
def test_how_a_container_is_set_up(recorded: Recorded, answer: str) -> None:
    found = recorded.engine(answer).inspect("rec-a")
    assert found is not None
    assert strayed(SET_UP, found) == ()
    other = replace(SET_UP, restart="always", user="1:1", read_only=False, limits=Limits(memory="1m", pids=1, cpus=1.0))
    names = ["restart policy", "memory limit", "pids limit", "CPU limit", "user", "read-only root"]
    assert [line.partition(":")[0] for line in strayed(other, found)] == names


@of_all
def test_an_image(recorded: Recorded) -> None:
    found = recorded.engine("image").images.find(BASE)
    assert found is not None
    assert (found.ref, found.id.startswith("sha256:"), len(found.id)) == (BASE, True, 71)


@of_all
def test_what_is_absent(recorded: Recorded) -> None:
    assert recorded.engine("container-absent").inspect("rec-none") is None
    assert recorded.engine("image-absent").images.find("localhost/none:0") is None


@of_those_with("volume-absent")
def test_an_absent_volume(recorded: Recorded, answer: str) -> None:
    recorded.engine(answer).volume_remove("rec-none")


FAILURES: dict[str, type[Exception]] = {
    "run-image-absent": ImageUnavailable,
    "run-name-taken": ConflictError,
    "run-port-taken": ConflictError,
    "runtime-refuses-host": EngineError,
    "runtime-refuses-limit": EngineError,
}


@of_those_with(*FAILURES)
def test_a_failed_run(recorded: Recorded, answer: str) -> None:
    with pytest.raises((EngineError, ConflictError)) as caught:
        recorded.running(answer).run(ContainerSpec(name="rec-a", image=BASE))
    assert type(caught.value) is FAILURES[answer]
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert "level=" not in caught.value.message
    if answer.startswith("runtime-refuses"):
        assert "containers.conf" in caught.value.hint


@of_those_with("build-without-buildkit")
def test_a_build_without_a_builder(recorded: Recorded, answer: str, tmp_path: Path) -> None:
    with pytest.raises(ImageUnavailable) as caught:
        recorded.engine(answer).images.build(BuildRequest(context=tmp_path, tag="x"), lambda line: None)
    assert "buildkitd" in caught.value.message
    assert "start buildkitd" in (caught.value.hint or "")


@of_those_with("exec-failed")
def test_the_exit_code_of_what_was_executed(recorded: Recorded, answer: str) -> None:
    done = recorded.engine(answer).exec("rec-a", ("sh", "-c", "exit 3"))
    assert (done.returncode, done.stderr) == (3, "")


@of_those_with("ps-ports")
def test_a_port_that_another_container_has(recorded: Recorded, answer: str) -> None:
    """As an engine tells it that would lead the packets away from that one."""
    taken = Port(host_ip="127.0.0.1", host_port=33141, container_port=3141)
    with pytest.raises(ConflictError) as caught:
        recorded.running(answer).run(ContainerSpec(name="rec-b", image=BASE, ports=(taken,)))
    assert "port 33141 is taken by rec-a" in caught.value.message


def test_a_name_is_guarded_where_the_engine_may_give_it_twice() -> None:
    recorded = RECORDED["nerdctl-2.1.2"]
    with pytest.raises(ConflictError) as caught:
        recorded.engine("inspect").run(ContainerSpec(name="rec-a", image=BASE))
    assert "name rec-a is taken" in caught.value.message


@of_all
def test_what_an_old_containerd_does_not_keep(recorded: Recorded) -> None:
    unkept = recorded.dialect.unkept(json.loads(recorded.answers["version"]["stdout"]))
    old = "containerd 1.6" in recorded.origin
    assert unkept == (("on-failure", "unless-stopped") if old else ())


@of_all
def test_failures_of_what_is_not_there(recorded: Recorded) -> None:
    with pytest.raises(EngineError):
        recorded.engine("rename-absent").rename("rec-none", "rec-c")


@of_those_with("down")
def test_an_engine_that_is_down(
    recorded: Recorded, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / recorded.dialect.name).write_text("#!/bin/sh\n")
    (tmp_path / recorded.dialect.name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable) as caught:
        recorded.engine(answer).probe()
    assert "--engine process" in caught.value.hint
