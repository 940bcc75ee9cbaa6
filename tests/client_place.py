"""A home with a client file in it, the calls of who lives there, and children that become somebody else."""

from __future__ import annotations

import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import filelock  # noqa: F401 - here, so that no forked child has to import it
import pytest

from deployer.clients.client import Account, ClientFile, ClientSettings
from deployer.clients.configure import ClientChange, configure, preview, undo
from deployer.clients.pip import Pip
from deployer.errors import ClientFileError

SETTINGS = ClientSettings(index_url="http://127.0.0.1:3141/root/dev/+simple/", timeout=60)
OTHER = ClientSettings(index_url="http://127.0.0.1:4000/root/other/+simple/", timeout=7)
MINE = b"# mine\r\n[global]\r\ntimeout = 3\r\n"
NOBODY = 65534
CANARY = "canary-secret"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Place:
    """A home, the client file of its user, and the calls of who lives there."""

    def __init__(self, root: Path, client: ClientFile | None = None) -> None:
        self.home = root / "home"
        self.home.mkdir()
        self.state = root / "state" / "clients"
        self.env = {"HOME": str(self.home), "PATH": os.defpath}
        self.client = client or Pip()
        self.conf = self.client.detect("user", self.account)

    @property
    def account(self) -> Account:
        return Account(env=self.env, home=self.home, state=self.state, directory=self.home)

    def write(self, content: bytes, mode: int = 0o644) -> Path:
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        self.conf.write_bytes(content)
        self.conf.chmod(mode)
        return self.conf

    def configure(self, settings: ClientSettings = SETTINGS, *, scope: str = "user") -> ClientChange:
        return configure(self.client, settings, scope=scope, account=self.account)

    def preview(self) -> ClientChange:
        return preview(self.client, SETTINGS, account=self.account)

    def undo(self) -> ClientChange:
        return undo(self.client, account=self.account)

    def url(self) -> str:
        return self.client.read(self.account).effective(self.client.index_key).value

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """All of the home: mode and content by path."""
        return {
            str(path.relative_to(self.home)): (
                stat.S_IMODE(path.lstat().st_mode),
                os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b"",
            )
            for path in sorted(self.home.rglob("*"))
        }

    def records(self) -> list[Path]:
        return sorted(self.state.glob("*.json"))


def refused(call: Callable[[], object]) -> ClientFileError:
    with pytest.raises(ClientFileError) as error:
        call()
    assert error.value.exit_code == 8
    assert error.value.hint
    assert "\n" not in error.value.message
    return error.value


def in_child(action: Callable[[], object], *, uid: int | None = None) -> int:
    """The exit code of a forked child that does ``action``: 0, or an error's own, or 99."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            action()
        except ClientFileError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
            code = 99
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def give(path: Path, uid: int) -> None:
    os.chown(path, uid, uid)
    for below in path.rglob("*"):
        os.chown(below, uid, uid, follow_symlinks=False)
