"""Client files on disk: old bytes or new ones, never between, never somebody else's."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock  # noqa: F401 - here, so that no forked child has to import it
import pytest

from deployer.clients import backups, files, pip
from deployer.clients.pip import merging
from deployer.errors import ClientFileError, Locked

SETTINGS = pip.PipSettings(index_url="http://127.0.0.1:3141/root/dev/+simple/", timeout=60)
OTHER = pip.PipSettings(index_url="http://127.0.0.1:4000/root/other/+simple/", timeout=7)
MINE = b"# mine\r\n[global]\r\ntimeout = 3\r\n"
NOBODY = 65534
CANARY = "canary-secret"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Place:
    """A home, its pip.conf, and the calls of a user who lives there."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.home.mkdir()
        self.state = root / "state" / "clients"
        self.conf = self.home / ".config" / "pip" / "pip.conf"
        self.env = {"HOME": str(self.home), "PATH": os.defpath}

    def write(self, content: bytes, mode: int = 0o644) -> Path:
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        self.conf.write_bytes(content)
        self.conf.chmod(mode)
        return self.conf

    def configure(self, settings: pip.PipSettings = SETTINGS) -> pip.ClientChange:
        return pip.configure(settings, env=self.env, state=self.state)

    def preview(self) -> pip.ClientChange:
        return pip.preview(SETTINGS, env=self.env, state=self.state)

    def undo(self) -> pip.ClientChange:
        return pip.undo(env=self.env, state=self.state)

    def url(self) -> str:
        return pip.read_config(self.env, state=self.state).value("index-url")

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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(call: Callable[[], object]) -> ClientFileError:
    with pytest.raises(ClientFileError) as error:
        call()
    assert error.value.exit_code == 8
    assert error.value.hint
    assert "\n" not in error.value.message
    return error.value


# -- configure and undo ------------------------------------------------------------------------------------------


def test_a_new_file_and_its_folders_go_again(place: Place) -> None:
    change = place.configure()
    assert change.changed and change.path == place.conf and change.before is None
    assert place.url() == SETTINGS.index_url
    assert stat.S_IMODE((place.home / ".config").stat().st_mode) == 0o700
    assert place.undo().changed
    assert place.tree() == {}
    assert place.records() == []


def test_a_folder_that_somebody_uses_stays(place: Place) -> None:
    place.configure()
    (place.home / ".config" / "other").mkdir()
    place.undo()
    assert list(place.tree()) == [".config", ".config/other"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o640, 0o755])
def test_bytes_and_mode_come_back(place: Place, mode: int) -> None:
    place.write(MINE, mode)
    before = place.tree()
    place.configure()
    assert stat.S_IMODE(place.conf.stat().st_mode) == mode
    assert place.conf.read_bytes().startswith(b"# mine\r\n[global]\r\ntimeout = 60\r\n")
    place.undo()
    assert place.tree() == before


def test_mode_that_was_changed_comes_back_too(place: Place) -> None:
    place.write(MINE, 0o640)
    place.configure()
    place.conf.chmod(0o600)
    place.undo()
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o640


def test_again_changes_nothing(place: Place) -> None:
    place.write(MINE)
    place.configure()
    first = place.conf.stat()
    change = place.configure()
    assert not change.changed and change.backup is None
    assert place.conf.stat().st_ino == first.st_ino and place.conf.stat().st_mtime_ns == first.st_mtime_ns


def test_the_second_configure_keeps_the_first_backup(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.configure(OTHER)
    assert place.url() == OTHER.index_url
    place.undo()
    assert place.conf.read_bytes() == MINE


def test_undo_twice_is_nothing_to_do(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.undo()
    second = place.undo()
    assert not second.changed and second.warnings == ()
    assert place.conf.read_bytes() == MINE


def test_undo_without_configure_is_nothing_to_do(place: Place) -> None:
    assert not place.undo().changed
    assert place.tree() == {} and not place.state.exists()


def test_edits_of_others_stay(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes() + b"[install]\nuser = true\n")
    change = place.undo()
    assert place.conf.read_bytes() == MINE + b"[install]\nuser = true\n"
    assert "somebody else" in change.warnings[0]
    assert not place.undo().changed


def test_edits_between_two_configures_stay(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes().replace(b"# mine", b"# edited"))
    place.configure(OTHER)
    place.undo()
    assert place.conf.read_bytes() == MINE.replace(b"# mine", b"# edited")


def test_an_address_of_somebody_else_is_what_comes_back(place: Place) -> None:
    place.configure()
    place.write(b"[global]\nindex-url = https://corp.example.com/simple\n")
    place.configure(OTHER)
    place.undo()
    assert place.conf.read_bytes() == b"[global]\nindex-url = https://corp.example.com/simple\n"


def test_an_address_that_is_not_ours_any_more_is_not_touched(place: Place) -> None:
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes().replace(b"127.0.0.1:3141", b"corp.example.com"))
    change = place.undo()
    assert place.url() == "http://corp.example.com/root/dev/+simple/"
    assert any("index-url" in line for line in change.warnings)


def test_others_edits_of_a_new_file_stay(place: Place) -> None:
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes() + b"[install]\nuser = true\n")
    place.undo()
    assert place.conf.read_bytes() == b"[install]\nuser = true\n"


def test_a_file_that_was_removed(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.unlink()
    change = place.undo()
    assert place.conf.read_bytes() == MINE and "removed" in change.warnings[0]


def test_a_new_file_that_was_removed(place: Place) -> None:
    place.configure()
    place.conf.unlink()
    place.undo()
    assert place.tree() == {} and place.records() == []


def test_preview_writes_nothing(place: Place) -> None:
    place.write(MINE)
    before = place.tree()
    change = place.preview()
    assert change.changed and SETTINGS.index_url in change.text
    assert place.tree() == before and not place.state.exists()


# -- what is secret stays secret ---------------------------------------------------------------------------------


@pytest.fixture
def no_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


def test_private_under_any_umask(place: Place, no_umask: None) -> None:
    place.write(b"[global]\nindex-url = https://me:%s@corp.example.com/\n" % CANARY.encode(), 0o600)
    change = place.configure()
    assert CANARY not in repr(change)
    assert change.backup is not None
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o600
    for path in [place.state, *place.state.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("former", [None, b"[global]\ntimeout = 3\n"])
def test_credentials_make_a_file_private(place: Place, no_umask: None, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o644)
    place.configure(pip.PipSettings(index_url="https://me:secret@corp.example.com/simple/", timeout=5))
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o600


def test_a_new_file_without_credentials_is_not_private(place: Place, no_umask: None) -> None:
    place.configure()
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o644


# -- what is in its place ----------------------------------------------------------------------------------------


def test_a_symlink_stays_one(place: Place) -> None:
    dotfiles = place.home / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "pip.conf").write_bytes(MINE)
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("../../dotfiles/pip.conf")
    before = place.tree()
    place.configure()
    assert place.conf.is_symlink() and b"3141" in (dotfiles / "pip.conf").read_bytes()
    place.undo()
    assert place.tree() == before


def test_a_dangling_symlink_gets_its_file(place: Place) -> None:
    (place.home / "dotfiles").mkdir()
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("../../dotfiles/pip.conf")
    before = place.tree()
    place.configure()
    assert place.conf.is_symlink() and (place.home / "dotfiles" / "pip.conf").is_file()
    place.undo()
    assert place.tree() == before


def test_a_symlink_into_nowhere_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("/nonexistent/deployer/pip.conf")
    refused(place.configure)
    assert place.conf.is_symlink() and not Path("/nonexistent").exists()


def test_a_loop_of_symlinks_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("pip.conf")
    assert "loop" in refused(place.configure).message
    refused(place.undo)


@as_root
def test_a_dangling_symlink_into_the_folder_of_another_user_is_refused(place: Place) -> None:
    theirs = place.home.parent / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to(theirs / "pip.conf")
    refused(place.configure)
    assert list(theirs.iterdir()) == []


def test_a_directory_is_refused(place: Place) -> None:
    place.conf.mkdir(parents=True)
    assert "directory" in refused(place.configure).message
    refused(place.preview)


def test_a_file_where_a_folder_should_be_is_refused(place: Place) -> None:
    (place.home / ".config").write_text("x")
    refused(place.configure)
    assert (place.home / ".config").read_text() == "x"


def test_a_pipe_is_refused_and_not_waited_for(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    os.mkfifo(place.conf)
    refused(place.configure)
    assert place.url() == ""


def test_a_device_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to(os.devnull)
    refused(place.configure)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[global]\n# caf\xe9\n", "not UTF-8 at byte 14"),
        (b"\xef\xbb\xbf[global]\n", "byte order mark"),
        (b"\xff\xfe[\x00", "not UTF-8 at byte 0"),
        (b"timeout = 3\n", "line 1"),
        (b"[global]\na = 1\na = 2\n", "twice"),
        (b"[global]\n" + b"# x\n" * 100_000, "larger"),
    ],
    ids=["latin-1", "bom", "utf-16", "no section", "twice", "large"],
)
def test_what_pip_cant_read_is_left_alone(place: Place, content: bytes, says: str) -> None:
    place.write(content)
    before = place.tree()
    for call in (place.configure, place.preview):
        error = refused(call)
        assert says in error.message and str(place.conf) in error.message
    assert place.tree() == before and place.records() == []


def test_undo_leaves_a_file_that_broke_since_alone(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.write_bytes(b"broken")
    refused(place.undo)
    assert place.conf.read_bytes() == b"broken" and place.records()


def test_a_damaged_backup_is_told(place: Place) -> None:
    place.write(MINE)
    place.configure()
    now = place.conf.read_bytes()
    for damage in ('{"schema": 1}', "", "[]", '{"schema": 99}'):
        place.records()[0].write_text(damage)
        refused(place.undo)
    assert place.conf.read_bytes() == now and place.url() == SETTINGS.index_url


# -- what belongs to others --------------------------------------------------------------------------------------


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


@pytest.fixture
def shared() -> Iterator[Place]:
    """A place that other users can reach (the folder of ``tmp_path`` is private)."""
    root = Path("/tmp") / f"deployer-test-{os.getpid()}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o755)
    yield Place(root)
    shutil.rmtree(root)


@as_root
def test_the_home_of_another_user_is_left_alone(shared: Place) -> None:
    """As after a ``sudo`` that kept HOME."""
    give(shared.home, NOBODY)
    error = refused(shared.configure)
    assert f"uid {NOBODY}" in error.message and "sudo" in error.hint
    refused(shared.preview)
    assert shared.tree() == {} and not shared.state.exists()


@as_root
def test_the_home_of_root_as_another_user(shared: Place) -> None:
    """As ``su`` without a dash leaves it: HOME is root's, and here it even could be written."""
    shared.home.chmod(0o777)

    def configure() -> None:
        error = refused(shared.configure)
        assert "belongs to uid 0" in error.message and f"runs as uid {NOBODY}" in error.message
        raise error

    assert in_child(configure, uid=NOBODY) == 8
    assert shared.tree() == {}


@as_root
def test_a_file_of_another_user_is_left_alone(place: Place) -> None:
    os.chown(place.write(MINE), NOBODY, -1)
    refused(place.configure)
    assert place.conf.read_bytes() == MINE


@as_root
def test_the_state_folder_of_another_user_is_left_alone(shared: Place) -> None:
    shared.state.parent.mkdir()
    give(shared.state.parent, NOBODY)
    refused(shared.configure)
    assert shared.tree() == {} and list(shared.state.parent.iterdir()) == []


@as_root
def test_a_user_who_may_not_write(shared: Place) -> None:
    shared.write(MINE, 0o644)
    give(shared.home, NOBODY)
    shared.state.mkdir(parents=True)
    give(shared.state.parent, NOBODY)
    assert in_child(shared.configure, uid=NOBODY) == 0
    assert in_child(shared.undo, uid=NOBODY) == 0
    shared.conf.chmod(0o444)
    assert in_child(shared.configure, uid=NOBODY) == 8
    shared.conf.chmod(0o644)
    shared.conf.parent.chmod(0o555)
    assert in_child(shared.configure, uid=NOBODY) == 8
    assert in_child(shared.preview, uid=NOBODY) == 8
    shared.conf.parent.chmod(0o000)
    assert in_child(shared.configure, uid=NOBODY) == 8
    shared.conf.parent.chmod(0o755)
    shared.state.parent.chmod(0o555)
    shared.state.rmdir() if not any(shared.state.iterdir()) else shutil.rmtree(shared.state)
    assert in_child(shared.configure, uid=NOBODY) == 8
    assert shared.conf.read_bytes() == MINE
    assert (
        in_child(lambda: pip.configure(SETTINGS, scope="global", env=shared.env, state=shared.state), uid=NOBODY) == 8
    )


def test_a_file_that_nobody_may_write_is_left_alone(place: Place) -> None:
    place.write(MINE, 0o444)
    assert "read-only" in refused(place.configure).message
    assert place.conf.read_bytes() == MINE


@as_root
def test_the_group_of_a_file_is_kept(place: Place) -> None:
    os.chown(place.write(MINE, 0o640), -1, NOBODY)
    place.configure()
    assert (place.conf.stat().st_gid, stat.S_IMODE(place.conf.stat().st_mode)) == (NOBODY, 0o640)


# -- crashes, races, full disks ----------------------------------------------------------------------------------


# Between two of these nothing on the disk changes (`write`, `flush` and `close` are the stream's, too).
STEPS = frozenset(
    [
        "open",
        "write",
        "flush",
        "close",
        "fsync",
        "replace",
        "rename",
        "unlink",
        "mkdir",
        "rmdir",
        "chmod",
        "fchmod",
        "fchown",
        "flock",
        "link",
        "truncate",
    ]
)


def calls_until_death(action: Callable[[], object], limit: int) -> int:
    """Do ``action`` in a child that dies just before its ``limit``-th call that may change the disk."""
    count = 0

    def tick(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(argument, "__name__", "") in STEPS:
            count += 1
            if count == limit:
                os._exit(77)

    def run() -> None:
        sys.setprofile(tick)
        try:
            action()
        finally:
            sys.setprofile(None)

    return in_child(run)


def sweep(place: Place, action: Callable[[], object], check: Callable[[], None], reset: Callable[[], None]) -> int:
    """Let ``action`` die at every step; ``check`` what is left each time. How often it died."""
    limit = 0
    while True:
        limit += 1
        reset()
        code = calls_until_death(action, limit)
        check()
        if code == 0:
            return limit - 1
        assert code == 77


@pytest.mark.timeout(300)
@pytest.mark.parametrize("former", [None, MINE], ids=["new", "existing"])
def test_configure_may_die_anywhere(place: Place, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o640)
    original = place.tree()
    place.configure()
    written = place.conf.read_bytes()
    place.undo()

    def check() -> None:
        now = place.conf.read_bytes() if place.conf.exists() else None
        assert now in (former, written)
        place.configure()
        assert place.conf.read_bytes() == written
        place.undo()
        assert place.tree() == original and place.records() == []

    assert sweep(place, place.configure, check, lambda: None) > 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("former", [None, MINE], ids=["new", "existing"])
def test_undo_may_die_anywhere(place: Place, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o640)
    original = place.tree()

    def check() -> None:
        assert (place.conf.read_bytes() if place.conf.exists() else None) in (former, written)
        place.undo()
        assert place.tree() == original and place.records() == []

    place.configure()
    written = place.conf.read_bytes()
    assert sweep(place, place.undo, check, place.configure) > 10


@pytest.mark.parametrize("name", ["fsync", "replace", "fchmod", "open", "fdopen", "unlink"])
def test_a_system_that_refuses(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place.write(MINE)
    real = getattr(os, name)
    left = 0

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    failures = 0
    for at in range(12):
        left = at
        with monkeypatch.context() as patched:
            patched.setattr(os, name, failing)
            try:
                place.configure()
            except ClientFileError as error:
                assert "No space left" in error.message
                failures += 1
        now = place.conf.read_bytes()
        assert now in (MINE, merging.merge(MINE.decode(), SETTINGS.values()).encode())
        assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]
        place.undo()
        assert place.conf.read_bytes() == MINE
    # Removing a temporary file that is not there, and syncing a folder, may fail without harm.
    assert failures > 0


def test_a_change_by_another_program_is_not_overwritten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(MINE)
    real = files._write_beside

    def meanwhile(*args: object, **kwargs: object) -> Path:
        temporary = real(*args, **kwargs)  # type: ignore[arg-type]
        place.conf.write_bytes(b"[global]\n# by pip config set\n")
        return temporary

    monkeypatch.setattr(files, "_write_beside", meanwhile)
    real_save = backups.save

    def save(*args: object, **kwargs: object) -> Path:
        with monkeypatch.context() as patched:
            patched.setattr(files, "_write_beside", real)
            return real_save(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(backups, "save", save)
    assert "meanwhile" in refused(place.configure).message
    assert place.conf.read_bytes() == b"[global]\n# by pip config set\n"
    assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]


def test_what_a_killed_run_left_does_not_stay(place: Place) -> None:
    place.write(MINE)
    (place.conf.parent / ".pip.conf.deployer").write_bytes(b"half")
    place.configure()
    assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]


def test_a_run_that_does_not_finish(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    place.configure()
    monkeypatch.setattr(files, "LOCK_WAIT", 0.1)
    with FileLock(place.state / f"{files.digest(place.conf)}.lock"), pytest.raises(Locked):
        place.configure(OTHER)
    assert place.url() == SETTINGS.index_url


def test_many_at_once(place: Place) -> None:
    place.write(MINE)
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for port in range(5):
                    url = f"http://127.0.0.1:{3000 + number * 10 + port}/root/dev/+simple/"
                    place.configure(pip.PipSettings(index_url=url, timeout=60))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert place.url().endswith("/root/dev/+simple/")
    assert len(json.loads(place.records()[0].read_text())["writes"]) == 40
    place.undo()
    assert place.conf.read_bytes() == MINE
