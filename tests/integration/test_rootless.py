"""A rootless podman and a rootless docker, for real: a user of the test's own, with sub-ids and no right at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployer.image import reference
from tests.engines import need
from tests.integration.cli import Cli

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("useradd", "userdel", "newuidmap", "slirp4netns", "unshare", "nsenter", "setpriv", "mknod")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/share/docker.io/contrib"
"""With where Debian has the script that starts a rootless docker."""
ENGINES = {"podman": (), "docker": ("rootlesskit", "dockerd-rootless.sh")}
"""What each needs to be rootless, besides itself."""
PATIENCE = 120.0


@dataclass
class Rootless(Cli):
    """A user without any right, in a name space where the program and a tunnel device are within reach."""

    uid: int = field(kw_only=True)
    space: int = field(kw_only=True)

    @property
    def env(self) -> dict[str, str]:
        """What root's engine was told is not for this user, who has a configuration of their own."""
        return {key: value for key, value in super().env.items() if not key.startswith("CONTAINERS_")}

    def as_user(self, *argv: str) -> list[str]:
        ids = (f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups")
        return ["nsenter", f"--mount=/proc/{self.space}/ns/mnt", "setpriv", *ids, *argv]

    def argv(self, *words: str) -> list[str]:
        return self.as_user(
            str(self.home / "python/bin" / Path(sys.executable).resolve().name), "-m", "deployer.cli", *words
        )

    def client(self, *argv: str, **how: Any) -> str:
        """What the user's own engine says."""
        words = self.as_user(self.engine, *argv)
        done = subprocess.run(words, env=self.env, cwd=self.home, check=True, stdout=subprocess.PIPE, text=True, **how)
        return str(done.stdout).strip()

    @property
    def limits_nothing(self) -> bool:
        """Whether the control groups are of a version that is delegated to nobody."""
        asked = {"podman": "--format={{.Host.CgroupsVersion}}", "docker": "--format={{.CgroupVersion}}"}
        return self.client("info", asked[self.engine]) in ("v1", "1")


def add_user(home: Path) -> tuple[str, int]:
    """A user with sub-ids, as useradd gives them to everybody."""
    name = f"dep{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--home-dir", str(home), "--user-group", name], check=True, capture_output=True)
    uid = int(subprocess.check_output(["id", "--user", name], text=True))
    if f"{name}:" not in Path("/etc/subuid").read_text():
        subprocess.run(["usermod", "--add-subuids=2000000-2065535", "--add-subgids=2000000-2065535", name], check=True)
    return name, uid


def prepare_home(home: Path, uid: int) -> None:
    for place in ("python", "site", "repo", "run", ".config/containers"):
        (home / place).mkdir(parents=True)
    (home / ".config/containers/storage.conf").write_text('[storage]\ndriver = "overlay"\n')
    configured = os.environ.get("CONTAINERS_CONF")
    if configured and Path(configured).is_file():
        shutil.copy(configured, home / ".config/containers/containers.conf")
    subprocess.run(["mknod", str(home / "tun"), "c", "10", "200"], check=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, uid, uid)
    (home / "tun").chmod(0o600)
    (home / "run").chmod(0o700)


def open_space(home: Path) -> subprocess.Popen[bytes]:
    """Mounts that nobody else sees: the program, wherever it is installed, and a tunnel device of the user's own."""
    mounts = {
        sys.base_prefix: home / "python",
        sysconfig.get_path("purelib"): home / "site",
        str(ROOT): home / "repo",
        str(home / "tun"): Path("/dev/net/tun"),
    }
    script = ["mount --make-rslave /", *(f'mount --bind "{what}" "{where}"' for what, where in mounts.items())]
    script += ["mount --make-rshared /", "echo ready", "exec sleep infinity"]
    space = subprocess.Popen(["unshare", "--mount", "sh", "-ec", "\n".join(script)], stdout=subprocess.PIPE)
    assert space.stdout is not None
    assert space.stdout.readline() == b"ready\n"
    return space


@contextmanager
def daemon(cli: Rootless) -> Iterator[None]:
    """The user's own dockerd, in name spaces of theirs; podman needs none."""
    if cli.engine == "podman":
        yield
        subprocess.run(cli.as_user("podman", "system", "migrate"), env=cli.env, cwd=cli.home, check=False)
        return
    words = ("dockerd-rootless.sh", f"--data-root={cli.home}/disk", f"--exec-root={cli.home}/run/docker")
    log = cli.home / "dockerd.log"
    with log.open("wb") as out:
        env = {**cli.env, "PATH": PATH}
        process = subprocess.Popen(cli.as_user(*words), env=env, cwd=cli.home, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(
            cli.as_user("docker", "version"), env=cli.env, capture_output=True, check=False
        ).returncode:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        with suppress(OSError, ValueError):  # it never came to write its number
            os.kill(int((cli.home / "run/docker.pid").read_text()), signal.SIGTERM)
        process.wait(timeout=PATIENCE)


@pytest.fixture(
    scope="module",
    params=[pytest.param("podman", marks=pytest.mark.podman), pytest.param("docker", marks=pytest.mark.docker)],
)
def cli(request: pytest.FixtureRequest) -> Iterator[Rootless]:
    """Has our image, which was built as root: what is built is the same."""
    engine: str = request.param
    need(engine)
    if os.geteuid() != 0:
        pytest.skip("to make a user and its name space needs root")
    if missing := [tool for tool in (*TOOLS, *ENGINES[engine]) if shutil.which(tool, path=PATH) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no /dev/net/tun, which a rootless network needs")
    with TemporaryDirectory(prefix="deployer-rootless-") as directory, ExitStack() as stack:
        Path(directory).chmod(0o755)
        home = Path(directory) / "home"
        home.mkdir()
        name, uid = add_user(home)
        stack.callback(subprocess.run, ["userdel", "--force", name], check=False, capture_output=True)
        prepare_home(home, uid)
        space = open_space(home)
        stack.callback(space.wait)
        stack.callback(space.kill)
        made = Rootless(home=home, engine=engine, upstream="http://127.0.0.1:9/simple/", uid=uid, space=space.pid)
        made.extra = {
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": f"{home}/repo:{home}/site",
            "LD_LIBRARY_PATH": str(home / "python/lib"),
            "CONTAINERS_CONF": str(home / ".config/containers/containers.conf"),
            "CONTAINERS_STORAGE_CONF": "",
            "DOCKER_HOST": f"unix://{home}/run/docker.sock",
        }
        stack.enter_context(daemon(made))
        give_image(made, home)
        stack.callback(made.clean)
        yield made


def give_image(cli: Rootless, home: Path) -> None:
    root = Cli(home=home.parent / "root", engine=cli.engine)  # root believes no state in the home of another user
    root.home.mkdir()
    root.have_image()
    with subprocess.Popen([cli.engine, "save", reference()], stdout=subprocess.PIPE) as saved:
        cli.client("load", stdin=saved.stdout)


def words(cli: Cli, data: Path) -> Sequence[str]:
    (_, *rest) = cli.up_words()
    rest[rest.index("--data") + 1] = str(data)
    return rest


def test_what_a_rootless_server_writes_belongs_to_its_user(cli: Rootless) -> None:
    up = cli.up("--no-pip", "--json", timeout=280)
    assert up.code == 0, up.out + up.err
    owners = {path.lstat().st_uid for path in [cli.data, *cli.data.rglob("*")]}
    assert owners == {cli.uid}
    # Inside, podman maps the user to the same number, and docker to root.
    assert cli.client("exec", cli.name, "id", "-u") == (str(cli.uid) if cli.engine == "podman" else "0")
    # What this host's control groups don't let a user limit is left out, and told.
    told = [warning for warning in up.envelope["warnings"] if "can't limit" in warning]
    assert len(told) == (1 if cli.limits_nothing else len(told))
    again = cli.up("--no-pip", "--json")
    assert (again.code, again.data["changes"]) == (0, [])
    assert cli.run("restart").code == 0
    assert cli.run("status", "--json").data["ready"] is True

    backups = cli.home / "backups"
    made = cli.run("backup", "create", "--directory", str(backups))
    assert made.code == 0, made.err
    assert {path.lstat().st_uid for path in [backups, *backups.rglob("*")]} == {cli.uid}
    moved = cli.run("move", *words(cli, cli.home / "elsewhere"), "--delete-old", "--json")
    assert moved.code == 0, moved.out
    assert {path.lstat().st_uid for path in (cli.home / "elsewhere").rglob("*")} == {cli.uid}
    assert cli.run("down", "--purge", "--yes").code == 0
    assert not (cli.home / "elsewhere").exists()


def test_a_port_for_root_is_refused_before_anything_is_made(cli: Rootless) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("every port is for everybody here")
    refused = cli.run("up", *words(cli, cli.home / "none"), "--port", "80", "--no-pip")
    assert refused.code == 5
    assert f"is privileged, and a rootless {cli.engine}" in refused.err
    assert not (cli.home / "none").exists()
