"""A rootless podman, for real: a user of the test's own, with sub-ids, on a machine that hides nothing from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deployer.image import reference
from tests.engines import BASE, need
from tests.integration.cli import Cli

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("podman", "useradd", "userdel", "newuidmap", "slirp4netns", "unshare", "nsenter", "setpriv", "mknod")
pytestmark = pytest.mark.podman


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

    def podman(self, *argv: str) -> str:
        return subprocess.run(
            self.as_user("podman", *argv), env=self.env, cwd=self.home, check=True, capture_output=True, text=True
        ).stdout.strip()


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


@pytest.fixture(scope="module")
def cli() -> Iterator[Rootless]:
    """Has our image, which was built as root: what is built is the same."""
    need("podman")
    if os.geteuid() != 0:
        pytest.skip("to make a user and its name space needs root")
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no /dev/net/tun, which a rootless network needs")
    with TemporaryDirectory(prefix="deployer-rootless-") as directory:
        Path(directory).chmod(0o755)
        home = Path(directory) / "home"
        home.mkdir()
        name, uid = add_user(home)
        prepare_home(home, uid)
        space = open_space(home)
        made = Rootless(home=home, engine="podman", upstream="http://127.0.0.1:9/simple/", uid=uid, space=space.pid)
        made.extra = {
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": f"{home}/repo:{home}/site",
            "LD_LIBRARY_PATH": str(home / "python/lib"),
        }
        made.extra |= {
            "CONTAINERS_CONF": str(home / ".config/containers/containers.conf"),
            "CONTAINERS_STORAGE_CONF": "",
        }
        try:
            give_image(made, home)
            yield made
        finally:
            made.clean()
            subprocess.run(made.as_user("podman", "system", "migrate"), env=made.env, cwd=home, check=False)
            space.kill()
            space.wait()
            subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def give_image(cli: Rootless, home: Path) -> None:
    root = Cli(home=home / "run", engine="podman")
    assert root.run("image", "build", "--engine", "podman", "--base-image", BASE).code == 0
    archive = home / "image.tar"
    subprocess.run(["podman", "save", "--output", str(archive), reference()], check=True, capture_output=True)
    archive.chmod(0o644)
    cli.podman("load", "--input", str(archive))
    archive.unlink()


def words(cli: Cli, data: Path) -> Sequence[str]:
    (_, *rest) = cli.up_words()
    rest[rest.index("--data") + 1] = str(data)
    return rest


def test_what_a_rootless_server_writes_belongs_to_its_user(cli: Rootless) -> None:
    up = cli.up("--no-pip", "--json", timeout=280)
    assert up.code == 0, up.out + up.err
    owners = {path.lstat().st_uid for path in [cli.data, *cli.data.rglob("*")]}
    assert owners == {cli.uid}
    assert cli.podman("exec", cli.name, "id", "-u") == str(cli.uid)
    # What this host's control groups don't let a user limit is left out, and told.
    info = cli.podman("info", "--format={{.Host.CgroupsVersion}}")
    told = [warning for warning in up.envelope["warnings"] if "can't limit" in warning]
    assert len(told) == (1 if info == "v1" else len(told))
    again = cli.up("--no-pip", "--json")
    assert (again.code, again.data["changes"]) == (0, [])
    assert cli.run("restart").code == 0
    assert cli.run("status", "--json").data["ready"] is True

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
    assert "for root only, and a rootless podman" in refused.err
    assert not (cli.home / "none").exists()
