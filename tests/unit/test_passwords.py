"""Where a password is looked for, in which order, and what is kept."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Self

import pytest

from deployer.deployment.passwords import Passwords
from deployer.deployment.server_dir import ServerDir
from deployer.devpi import api
from deployer.errors import ServerRefused
from deployer.secrets import Secret
from deployer.spec import Mount
from tests.fake_engine import FakeEngine

URL = "http://127.0.0.1:3141"
GIVEN, OWN, OTHER = Secret("given by hand"), Secret("of the server"), Secret("of somebody else")


class Server:
    """A devpi that accepts one password; ``tried``: all that it got."""

    def __init__(self) -> None:
        self.valid, self.tried = OWN, list[Secret]()

    def __call__(self, url: str) -> Self:
        assert url == URL
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def login(self, user: str, password: Secret) -> None:
        self.tried.append(password)
        if password != self.valid:
            raise ServerRefused("wrong password")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(api, "DevpiApi", made)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data/.deployer").mkdir(parents=True)
    return tmp_path / "data/.deployer/root-password"


@pytest.fixture
def passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path) -> Passwords:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    mount = Mount(kind="bind", source=str(data.parent.parent), target="/data")
    return Passwords(name="it", server_dir=ServerDir(engine=FakeEngine(), container="it", mount=mount))


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "state").rglob("*.password"))


def test_unknown_is_none(passwords: Passwords, server: Server) -> None:
    assert passwords.known("root") is passwords.known("dev") is passwords.valid("root", URL) is None
    assert Passwords(name="it").valid("root", URL) is None and server.tried == []


def test_the_host_comes_before_the_server_directory(passwords: Passwords, data: Path) -> None:
    data.write_text(OWN.reveal() + "\n")
    assert (passwords.known("root"), passwords.in_doubt) == (OWN, False)
    passwords.store("root", GIVEN)
    assert (passwords.known("root"), passwords.in_doubt) == (GIVEN, True)


def test_only_roots_password_is_in_the_server_directory(passwords: Passwords, data: Path) -> None:
    data.write_text(OWN.reveal())
    assert passwords.known("dev") is None
    passwords.store("dev", GIVEN)
    passwords.settle("dev", GIVEN)
    assert (passwords.known("dev"), data.read_text()) == (GIVEN, OWN.reveal())


@pytest.mark.parametrize("valid", [GIVEN, OWN])
def test_the_server_decides_between_two_and_one_is_kept(
    passwords: Passwords, server: Server, data: Path, tmp_path: Path, valid: Secret
) -> None:
    data.write_text(OWN.reveal())
    passwords.store("root", GIVEN)
    server.valid = valid
    assert passwords.valid("root", URL) == valid
    assert server.tried == ([GIVEN] if valid == GIVEN else [GIVEN, OWN])
    assert (data.read_text().strip(), kept(tmp_path)) == (valid.reveal(), [])
    assert stat.S_IMODE(data.stat().st_mode) == (0o600 if valid == GIVEN else 0o644)


def test_two_that_the_server_refuses_both_stay(
    passwords: Passwords, server: Server, data: Path, tmp_path: Path
) -> None:
    data.write_text(OWN.reveal())
    passwords.store("root", GIVEN)
    server.valid = OTHER
    assert passwords.valid("root", URL) == GIVEN
    assert (data.read_text(), kept(tmp_path)) == (OWN.reveal(), ["root.password"])


def test_the_same_password_twice_is_kept_once_and_the_server_is_not_asked(
    passwords: Passwords, server: Server, data: Path, tmp_path: Path
) -> None:
    data.write_text(OWN.reveal())
    passwords.store("root", OWN)
    assert passwords.valid("root", URL) == OWN
    assert (server.tried, kept(tmp_path)) == ([], [])


def test_a_server_that_is_not_ours_gets_no_file(passwords: Passwords, data: Path, tmp_path: Path) -> None:
    passwords.store("root", GIVEN)
    passwords.settle("root", GIVEN)
    assert (passwords.valid("root", URL), data.exists(), kept(tmp_path)) == (GIVEN, False, ["root.password"])


def test_a_change_that_is_refused_keeps_the_former_password(passwords: Passwords) -> None:
    for former in (None, OWN):
        if former is not None:
            passwords.store("dev", former)
        with pytest.raises(ServerRefused), passwords.changing("dev", GIVEN):
            raise ServerRefused("no")
        assert passwords.known("dev") == former


def test_a_change_that_is_cut_short_keeps_both(passwords: Passwords, data: Path) -> None:
    data.write_text(OWN.reveal())
    with pytest.raises(KeyboardInterrupt), passwords.changing("root", GIVEN):
        assert passwords.in_doubt
        raise KeyboardInterrupt
    assert passwords.in_doubt


def test_a_change_of_root_ends_in_the_server_directory(passwords: Passwords, data: Path, tmp_path: Path) -> None:
    data.write_text(OWN.reveal())
    with passwords.changing("root", GIVEN):
        pass
    assert (data.read_text(), kept(tmp_path)) == (GIVEN.reveal() + "\n", [])


def test_all_are_forgotten(passwords: Passwords, tmp_path: Path) -> None:
    generated = {user: passwords.generate(user) for user in ("a", "b")}
    assert len(set(generated.values())) == 2 and passwords.known("a") == generated["a"]
    passwords.forget("a")
    assert kept(tmp_path) == ["b.password"]
    passwords.forget_all()
    assert kept(tmp_path) == []
