"""What is done to a server directory before devpi-server may touch it. Standard library only.

Every step can be cut short by a kill at any moment and is done again, or finished, by the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRIVATE = ".deployer"
DATABASE = ".sqlite"
LAYOUT = "4"
"""The layout of the server directory (first number of ``.serverversion``) that devpi-server 6 can run."""

TAKEN, DAMAGED, UNSAFE = 5, 9, 11
"""Exit codes of a refusal: the directory is in use, the data is damaged, it would not be safe."""
REFUSALS = frozenset({TAKEN, DAMAGED, UNSAFE})

# The rollback journal of a transaction that was cut short (sqlite.org/fileformat.html, section 3).
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


class Refusal(Exception):
    """The server must not start: one line of cause, one of cure, and the exit code."""

    def __init__(self, cause: str, *, cure: str, code: int) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure
        self.code = code


@dataclass(frozen=True)
class Private:
    """Our own corner of the server directory, 0700, and what is in it, 0600."""

    directory: Path

    @classmethod
    def of(cls, serverdir: Path) -> Private:
        return cls(serverdir / PRIVATE)

    @property
    def root_password(self) -> Path:
        return self.directory / "root-password"

    @property
    def next_root_password(self) -> Path:
        """A password that is about to become root's."""
        return self.directory / "root-password.next"

    @property
    def secret(self) -> Path:
        """devpi's secret file, with which tokens are signed."""
        return self.directory / "secret"

    @property
    def proof_key(self) -> Path:
        """With this the server proves that it runs on this directory, and on no other."""
        return self.directory / "proof-key"

    @property
    def unfinished(self) -> Path:
        """There while the first boot is under way."""
        return self.directory / "first-boot"

    @property
    def running(self) -> Path:
        """There from start to clean stop."""
        return self.directory / "running"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, atomically and 0600 from the first moment."""
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def locked(serverdir: Path) -> Iterator[Private]:
    """Hold the server directory for the life of this process: devpi itself lets two servers run on one.

    The lock is the kernel's, so it dies with its holder and counts across the containers of one host.
    Raises Refusal.
    """
    private = Private.of(serverdir)
    try:
        serverdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(serverdir)
        private.directory.mkdir(exist_ok=True, mode=0o700)
        for directory in (serverdir, private.directory):
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
        descriptor = os.open(private.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refusal(
            f"{error.filename or serverdir} can't be used: {error.strerror}",
            cure=f"give the data directory to uid {os.getuid()}, and free some space if it is full",
            code=UNSAFE,
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"another server runs on {serverdir}", cure="stop it, or use another data directory", code=TAKEN
            ) from None
        yield private
    finally:
        os.close(descriptor)


def _check_ours(serverdir: Path) -> None:
    names = {entry.name for entry in os.scandir(serverdir)} - {"lost+found"}
    if names and not names & {PRIVATE, ".nodeinfo", ".serverversion", DATABASE}:
        raise Refusal(
            f"{serverdir} holds files that are not devpi's", cure="use an empty directory for the data", code=UNSAFE
        )


def repair(serverdir: Path, private: Private) -> None:
    """Make the directory fit for a start: remove litter, roll an interrupted transaction back, check what is there.

    Raises Refusal when the database is damaged, or of a layout that this server can't run. Nothing is ever made anew.
    """
    for litter in serverdir.glob("-.nodeinfo*"):
        # devpi writes this file at each start; on a full disk every try leaves an empty one behind.
        if litter.stat().st_size == 0:
            litter.unlink()
    if private.unfinished.exists():
        return
    _check_layout(serverdir)
    database = serverdir / DATABASE
    if database.exists():
        _check_database(database, private)
    elif (serverdir / ".nodeinfo").exists() and any(serverdir.glob("+files/*")):
        raise _damaged(database, private, "is missing")


def _check_layout(serverdir: Path) -> None:
    try:
        layout = (serverdir / ".serverversion").read_text().strip()
    except FileNotFoundError:
        return
    if layout.partition(".")[0] != LAYOUT:
        raise Refusal(
            f"{serverdir} has the layout {layout or 'nothing'}, this server runs layout {LAYOUT}",
            cure="export it with the devpi-server that made it, and import it into a new directory",
            code=UNSAFE,
        )


def _check_database(database: Path, private: Private) -> None:
    """One read-write open: devpi opens the database read-only first, and then can't roll a journal back (devpi#952).

    The check is thorough after a stop that was not clean; after a clean one it only looks at the structure of each
    page, which a large database needs to start in a second.
    """
    journal = database.with_name(database.name + "-journal")
    hot = journal.exists() and journal.read_bytes()[:8] == _JOURNAL_MAGIC
    thorough = hot or private.running.exists()
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            pragma = "integrity_check" if thorough else "quick_check"
            answers = [row[0] for row in connection.execute(f"pragma {pragma}(3)")]
            # An empty file is a sound database without a single table.
            tables = connection.execute("select count(*) from sqlite_master where type = 'table'").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "readonly" in str(error):
            raise Refusal(
                f"{database} can't be written: {error}", cure="free some space, and give it to this user", code=UNSAFE
            ) from None
        raise _damaged(database, private, str(error)) from None
    except sqlite3.DatabaseError as error:
        raise _damaged(database, private, str(error)) from None
    if answers != ["ok"]:
        raise _damaged(database, private, answers[0].splitlines()[0])
    if not tables:
        raise _damaged(database, private, "it is empty")


def _damaged(database: Path, private: Private, what: str) -> Refusal:
    backups = sorted(path.name for path in private.backups.glob("*") if path.is_dir())
    last = f"the last good backup is {private.backups / backups[-1]}" if backups else "there is no backup"
    return Refusal(f"{database} is damaged ({what}); {last}", cure="restore it: nothing was changed", code=DAMAGED)


def needs_first_boot(serverdir: Path, private: Private) -> bool:
    """Whether there is nothing yet, or only what an interrupted first boot left behind."""
    return private.unfinished.exists() or not (serverdir / ".nodeinfo").exists()


def start_over(serverdir: Path, private: Private) -> None:
    """Clear what an interrupted first boot left: nobody was ever answered from it."""
    write_private(private.unfinished, "")
    for name in (DATABASE, f"{DATABASE}-journal", ".nodeinfo", ".serverversion", ".event_serial"):
        (serverdir / name).unlink(missing_ok=True)


def ensure_secrets(private: Private) -> None:
    """The keys that the server generates for itself, where they are missing."""
    if not private.secret.exists():
        write_private(private.secret, secrets.token_urlsafe(48))
    if not private.proof_key.exists():
        write_private(private.proof_key, secrets.token_hex(32))


def new_password(path: Path) -> str:
    """Generate a password and keep it at ``path`` before it is valid anywhere."""
    password = secrets.token_urlsafe(32)
    write_private(path, password + "\n")
    return password


def read_text(path: Path) -> str | None:
    """The text of a small file, stripped; None when it is absent or empty."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def check(serverdir: Path) -> dict[str, object]:
    """What can be told of a server directory without starting a server on it, and without changing it.

    Raises Refusal as a start would.
    """
    with locked(serverdir) as private:
        repair(serverdir, private)
        nodeinfo = serverdir / ".nodeinfo"
        return {
            "serverdir": str(serverdir),
            "initialised": nodeinfo.exists() and not private.unfinished.exists(),
            "uuid": json.loads(nodeinfo.read_text()).get("uuid") if nodeinfo.exists() else None,
            "clean": not private.running.exists(),
        }
