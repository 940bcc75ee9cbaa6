"""What is done to a server directory before a start, on directories that no devpi ever saw."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deployer.image import LOCKS
from deployer.plan.versions import EXTRAS, LAYOUTS
from deployer.protocol import ExitCode, Refusal
from deployer.server.boot import prepare
from deployer.server.boot.run import _Masking
from deployer.server.devpi import installed
from deployer.server.devpi.passwords import OneAtATime, hash_random
from deployer.server.listening import bind
from deployer.server.secret_files import Private, ensure_keys, new_password, read_text, write_private


@pytest.fixture
def serverdir(tmp_path: Path) -> Path:
    """A directory with what is looked at of devpi's data."""
    path = tmp_path / "server"
    (path / ".deployer").mkdir(parents=True)
    (path / ".nodeinfo").write_text(json.dumps({"uuid": "abc", "role": "standalone"}))
    (path / ".serverversion").write_text("4")
    with sqlite3.connect(path / ".sqlite") as connection:
        connection.execute("create table kv (key text primary key, keyname text, serial integer)")
        connection.execute("create table changelog (serial integer primary key, data blob not null)")
    connection.close()
    return path


def refused(serverdir: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        prepare.repair(serverdir, Private.of(serverdir))
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def test_private_files_are_0600_from_the_first_moment(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_private(tmp_path / "x", "one")
        write_private(tmp_path / "x", "two")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert read_text(tmp_path / "x") == "two"


def test_keys_are_made_once_and_an_empty_one_is_none(tmp_path: Path) -> None:
    private = Private(tmp_path)
    private.secret.touch()
    ensure_keys(private)
    first = read_text(private.secret), read_text(private.proof_key)
    assert all(first)
    ensure_keys(private)
    assert (read_text(private.secret), read_text(private.proof_key)) == first
    assert new_password(private.root_password) != new_password(private.root_password)


def test_sound_data_is_let_through(serverdir: Path) -> None:
    prepare.repair(serverdir, Private.of(serverdir))
    assert not prepare.needs_first_boot(serverdir, Private.of(serverdir))


@pytest.mark.parametrize("gone", [".sqlite", ".nodeinfo"])
def test_half_of_the_data_is_damage(serverdir: Path, gone: str) -> None:
    (serverdir / gone).unlink()
    refusal = refused(serverdir)
    assert refusal.code == ExitCode.VERIFICATION
    assert gone in refusal.message


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_an_identity_that_cannot_be_read_is_damage(serverdir: Path, text: str) -> None:
    (serverdir / ".nodeinfo").write_text(text)
    assert refused(serverdir).code == ExitCode.VERIFICATION


@pytest.mark.parametrize("data", [b"", b"no database at all" * 100], ids=["empty", "garbage"])
def test_a_file_that_is_no_database_is_damage(serverdir: Path, data: bytes) -> None:
    (serverdir / ".sqlite").write_bytes(data)
    assert refused(serverdir).code == ExitCode.VERIFICATION
    assert (serverdir / ".sqlite").read_bytes() == data


def test_an_index_that_disagrees_is_found_only_after_an_unclean_stop(serverdir: Path) -> None:
    with sqlite3.connect(serverdir / ".sqlite") as connection:
        connection.execute("create table t (x)")
        connection.execute("create index i on t (x)")
        connection.execute("insert into t values (1)")
        connection.execute("pragma writable_schema = on")
        connection.execute("update sqlite_master set sql = 'create index i on t (x+1)' where name = 'i'")
    connection.close()
    private = Private.of(serverdir)
    prepare.repair(serverdir, private)
    write_private(private.running, "127.0.0.1 1\n")
    assert refused(serverdir).code == ExitCode.VERIFICATION


def test_a_database_that_another_program_holds_is_not_called_damaged(
    serverdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(prepare.sqlite3, "connect", lambda path, **options: connect(path, **options | {"timeout": 0}))
    holder = connect(serverdir / ".sqlite", isolation_level=None)
    holder.execute("begin exclusive")
    try:
        assert refused(serverdir).code == ExitCode.REFUSED
    finally:
        holder.close()


class Endless(sqlite3.Connection):
    """A database that takes for ever to check."""

    def execute(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]
        return super().execute("with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n")


def test_a_check_that_takes_too_long_is_cut_short() -> None:
    connection = sqlite3.connect(":memory:", factory=Endless)
    assert prepare._problem(connection, "integrity_check", 0.2) == ""
    connection.close()


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("5", "data of devpi-server 7"),
        ("5.1\n", "data of devpi-server 7"),
        ("3.1", "layout 3.1"),
        ("", "layout nothing"),
    ],
)
def test_data_of_another_version_is_refused_and_nothing_touched(tmp_path: Path, layout: str, told: str) -> None:
    serverdir = tmp_path / "server"
    serverdir.mkdir(mode=0o755)
    (serverdir / ".serverversion").write_text(layout)
    (serverdir / "-.nodeinfo1").touch()
    before = sorted((path, path.stat().st_mtime_ns, path.stat().st_mode) for path in (serverdir, *serverdir.iterdir()))
    with pytest.raises(Refusal) as caught, prepare.locked(serverdir):
        pass
    assert (caught.value.code, told in caught.value.message) == (ExitCode.REFUSED, True)
    assert "this server is devpi-server 6" in caught.value.message
    assert ('server.version: "7"' in caught.value.hint) == layout.startswith("5")
    after = sorted((path, path.stat().st_mtime_ns, path.stat().st_mode) for path in (serverdir, *serverdir.iterdir()))
    assert after == before


def test_a_plan_knows_the_layouts_that_the_server_knows() -> None:
    assert {known.layout: known.major for known in installed.KNOWN} == LAYOUTS
    assert EXTRAS.keys() == LOCKS.keys() == set(LAYOUTS.values())
    assert installed.installed() is installed.DEVPI_6


def test_litter_goes_unless_it_is_all_there_is(serverdir: Path) -> None:
    for name, text in (("-.nodeinfoa", ""), ("-.nodeinfob", '{"uuid": "abc"}')):
        (serverdir / name).write_text(text)
    (serverdir / ".nodeinfo").rename(serverdir / "kept")
    refused(serverdir)
    assert sorted(path.name for path in serverdir.glob("-*")) == ["-.nodeinfob"]
    (serverdir / "kept").rename(serverdir / ".nodeinfo")
    prepare.repair(serverdir, Private.of(serverdir))
    assert list(serverdir.glob("-*")) == []


def test_an_unfinished_first_boot_begins_again(serverdir: Path) -> None:
    private = Private.of(serverdir)
    write_private(private.unfinished, "")
    (serverdir / ".sqlite").write_bytes(b"half a page")
    prepare.repair(serverdir, private)
    assert prepare.needs_first_boot(serverdir, private)
    prepare.start_over(serverdir, private)
    assert sorted(path.name for path in serverdir.iterdir()) == [".deployer", ".serverversion"]
    assert prepare.needs_first_boot(serverdir, private)


def test_a_directory_is_made_private_and_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "LOCK_PATIENCE", 0.0)
    serverdir = tmp_path / "new"
    serverdir.mkdir(mode=0o755)
    serverdir.chmod(0o755)
    with prepare.locked(serverdir) as private:
        assert {stat.S_IMODE(p.stat().st_mode) for p in (serverdir, private.directory)} == {0o700}
        with pytest.raises(Refusal) as caught, prepare.locked(serverdir):
            pass
        assert caught.value.code == ExitCode.CONFLICT
    with prepare.locked(serverdir):
        pass


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from deployer.server.boot.prepare import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()
    with prepare.locked(tmp_path):
        pass


def test_files_of_others_are_refused_and_a_fresh_file_system_is_not(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with prepare.locked(tmp_path):
        pass
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    with pytest.raises(Refusal) as caught, prepare.locked(foreign):
        pass
    assert caught.value.code == ExitCode.REFUSED
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal) as caught, prepare.locked(tmp_path / "file"):
        pass
    assert caught.value.code == ExitCode.REFUSED


def test_the_port_is_held() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Refusal, match=str(port)) as caught:
            bind("127.0.0.1", port, patience=0.3)
        assert caught.value.code == ExitCode.CONFLICT
    (held,) = bind("127.0.0.1", port)
    with held, pytest.raises(Refusal, match="taken"):
        bind("127.0.0.1", port, patience=0.0)
    with pytest.raises(Refusal):
        bind("192.0.2.1", port)  # an address of documentation, which no host has


def test_addresses_lose_their_credentials_in_the_log() -> None:
    handler = logging.Formatter("%(levelname)s %(message)s")
    url = "https://deploy:s3cr3t@packages.example.com/simple/"
    record = logging.LogRecord("x", logging.INFO, "", 0, "created index %r, see https://example.com/@me", (url,), None)
    text = _Masking(handler).format(record)
    assert text == "INFO created index 'https://****@packages.example.com/simple/', see https://example.com/@me"


def test_passwords_wait_for_each_other() -> None:
    class Context:
        inside = most = 0

        def verify_and_update(self, _secret: str, _known: str) -> tuple[bool, None]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.002)
            self.inside -= 1
            return True, None

    context = Context()
    one = OneAtATime(context)
    threads = [threading.Thread(target=one.verify_and_update, args=("a", "b")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert context.most == 1


def test_only_a_drawn_password_is_hashed_without_stretching() -> None:
    auth = pytest.importorskip("devpi_server.auth", reason="devpi-server is not installed here")
    context = OneAtATime(auth.pwd_context)
    drawn, chosen = secrets.token_urlsafe(32), "correct horse"
    assert context.verify_and_update(drawn, hash_random(drawn)) == (True, None)
    assert context.verify_and_update("wrong", hash_random(drawn)) == (False, None)
    assert "m=8," not in context.hash(chosen)
    assert context.verify_and_update(chosen, context.hash(chosen)) == (True, None)


@pytest.mark.parametrize("sign", ["#", "?"])
def test_a_path_that_would_be_made_of_an_address_is_refused_and_nothing_is_made(tmp_path: Path, sign: str) -> None:
    with pytest.raises(Refusal) as caught, prepare.locked(tmp_path / f"data{sign}1"):
        pass
    assert caught.value.code == ExitCode.REFUSED
    assert not list(tmp_path.iterdir())
