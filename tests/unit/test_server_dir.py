"""Small files of a server directory, whose owner may have put anything there: nothing leads away from it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deployer.deployment.server_dir import ServerDir
from deployer.errors import ConflictError, EngineError, Refused
from deployer.host import untrusted
from deployer.host.gather import NODEINFO
from deployer.host.untrusted import Untrusted
from deployer.protocol import PrivateFile
from deployer.secrets import Secret
from deployer.spec import ExecResult, Mount
from tests.client_place import NOBODY, as_root
from tests.fake_engine import FakeEngine

ROOT_PASSWORD, PROOF_KEY = PrivateFile.ROOT_PASSWORD.relative, PrivateFile.PROOF_KEY.relative
VERB = ("secret", "set", "root")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    (path / ".deployer").mkdir(parents=True)
    (path / NODEINFO).write_text('{"uuid": "abc"}')
    (path / ROOT_PASSWORD).write_text("correct horse\n")
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere"
    path.mkdir()
    (path / "root-password").write_text("somebody else's\n")
    return path


def place(data: Path, engine: FakeEngine | None = None) -> ServerDir:
    mount = Mount(kind="bind", source=str(data), target="/data")
    return ServerDir(engine=engine or FakeEngine(), container="devpi", mount=mount)


def content(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_files_are_read_and_one_that_is_absent_is_none(data: Path) -> None:
    assert place(data).uuid() == "abc"
    assert place(data).root_password() == Secret("correct horse")
    assert place(data).proof_key() is None
    assert not place(data).gone


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": 1}', "{}"])
def test_an_identity_that_is_none(data: Path, text: str) -> None:
    (data / NODEINFO).write_text(text)
    assert place(data).uuid() is None


def test_a_link_is_not_followed(data: Path, elsewhere: Path) -> None:
    (data / ROOT_PASSWORD).unlink()
    (data / ROOT_PASSWORD).symlink_to(elsewhere / "root-password")
    with pytest.raises(Refused, match="root-password is a link") as caught:
        place(data).root_password()
    assert "remove" in caught.value.hint


def test_a_link_to_a_directory_is_not_followed(data: Path, elsewhere: Path) -> None:
    (data / ROOT_PASSWORD).unlink()
    (data / ".deployer").rmdir()
    (data / ".deployer").symlink_to(elsewhere)
    before = content(elsewhere)
    with pytest.raises(Refused, match="deployer is a link"):
        place(data).root_password()
    with pytest.raises(Refused, match="deployer is a link"):
        place(data).set_root_password(Secret("new"))
    assert content(elsewhere) == before


def test_a_data_directory_that_is_a_link_is_not_followed(data: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(data)
    with pytest.raises(Refused, match="link is a link"):
        place(link).root_password()
    assert not place(link).gone


def test_a_link_is_replaced_and_not_written_through(data: Path, elsewhere: Path) -> None:
    (data / ROOT_PASSWORD).unlink()
    (data / ROOT_PASSWORD).symlink_to(elsewhere / "root-password")
    (data / ".deployer/.root-password.new").symlink_to(elsewhere / "root-password")
    before = content(elsewhere)
    place(data).set_root_password(Secret("new"))
    assert content(elsewhere) == before
    assert place(data).root_password() == Secret("new")


def test_what_is_written_is_private_and_the_owners(data: Path) -> None:
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()
    for path in (data, data / ".deployer"):
        os.chown(path, owner, -1)
    place(data).set_root_password(Secret("new"))
    status = (data / ROOT_PASSWORD).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, owner)
    assert [path.name for path in (data / ".deployer").iterdir()] == ["root-password"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "large"])
def test_what_is_no_small_file_is_refused_at_once(data: Path, kind: str) -> None:
    path = data / PROOF_KEY
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "large":
            path.write_bytes(b"x" * (untrusted.LIMIT + 1))
    with pytest.raises(Refused, match=r"regular file|larger than"):
        place(data).proof_key()


@as_root
@pytest.mark.parametrize("foreign", [ROOT_PASSWORD, ".deployer"])
def test_what_another_user_put_there_is_not_believed(data: Path, foreign: str) -> None:
    for path in (data, data / ".deployer", data / ROOT_PASSWORD):
        os.chown(path, NOBODY, -1)
    os.chown(data / foreign, NOBODY - 1, -1)
    with pytest.raises(ConflictError, match=f"belongs to uid {NOBODY - 1}") as caught:
        place(data).root_password()
    assert f"chown -R {NOBODY}:" in caught.value.hint


def test_each_directory_on_the_way_is_looked_at(data: Path, elsewhere: Path) -> None:
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/c").write_text("here")
    assert untrusted.read(data, "a/b/c") == b"here"
    (data / "a/led").symlink_to(elsewhere)
    with pytest.raises(Untrusted, match="is a link"):
        untrusted.read(data, "a/led/root-password")


def test_of_a_long_log_the_end_is_read(data: Path, elsewhere: Path) -> None:
    log = data / PrivateFile.ACCESS_LOG.relative
    assert place(data).access_log() == ()
    log.parent.mkdir()
    log.write_bytes(b"x" * untrusted.LIMIT + b"\none\ntwo\n")
    assert place(data).access_log()[-2:] == ("one", "two")
    log.unlink()
    log.symlink_to(elsewhere / "root-password")
    with pytest.raises(Refused, match="is a link"):
        place(data).access_log()


def test_a_directory_is_made_private_and_a_link_is_no_directory(data: Path, elsewhere: Path) -> None:
    untrusted.make_directory(data, "made")
    untrusted.make_directory(data, "made")
    assert stat.S_IMODE((data / "made").stat().st_mode) == 0o700
    (data / "led").symlink_to(elsewhere)
    with pytest.raises(Untrusted, match="is a link"):
        untrusted.make_directory(data, "led")


# Through the engine


class Inside(FakeEngine):
    """An engine that tells what it was asked to run."""

    answer = ExecResult(returncode=0, stdout="from inside\n", stderr="")

    def exec(self, name: str, argv: object, *, stdin: bytes = b"") -> ExecResult:
        self.asked = (name, tuple(argv), stdin)  # type: ignore[call-overload]
        return self.answer


def test_a_volume_is_read_and_written_inside() -> None:
    engine = Inside()
    volume = ServerDir(engine=engine, container="devpi", mount=Mount(kind="volume", source="v", target="/data"))
    assert volume.read(ROOT_PASSWORD) == "from inside"
    assert engine.asked == ("devpi", ("cat", f"/data/{ROOT_PASSWORD}"), b"")
    volume.write(ROOT_PASSWORD, "new", verb=VERB)
    assert engine.asked[1][-2:] == ("--serverdir", "/data")
    assert engine.asked[2] == b"new"
    assert not volume.gone
    engine.answer = ExecResult(returncode=1, stdout="", stderr="no\n")
    assert volume.read(ROOT_PASSWORD) is None
    with pytest.raises(EngineError, match="devpi: secret: no"):
        volume.write(ROOT_PASSWORD, "new", verb=VERB)


def test_a_directory_that_this_user_may_not_look_into_is_read_inside(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(untrusted, "read", closed)
    monkeypatch.setattr(untrusted, "replace", closed)
    engine = Inside()
    assert place(data, engine).read(ROOT_PASSWORD) == "from inside"
    place(data, engine).set_root_password(Secret("new"))
    assert engine.asked[2] == b"new\n"
    assert not place(data, engine).gone


def test_data_that_is_gone(data: Path) -> None:
    (data / NODEINFO).unlink()
    assert place(data).gone
    with pytest.raises(ConflictError, match="is gone"):
        place(data).require_data()
