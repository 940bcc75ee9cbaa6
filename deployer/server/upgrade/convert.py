"""Convert the data of devpi-server 6 for devpi-server 7, while a server may run on it.

The first pass carries everything as of one moment, each further one what was committed meanwhile. The last pass holds
commits back: what is acknowledged by then is carried, and what is not yet is never acknowledged by the old server.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.protocol import ExitCode, PrivateFile, Refusal, UpgradePath, parsed
from deployer.server.backup import database
from deployer.server.boot import prepare
from deployer.server.devpi import stored
from deployer.server.devpi.installed import DEVPI_6, installed, server_version
from deployer.server.secret_files import Private, remove, write_private
from deployer.server.upgrade import data6, sets
from deployer.server.upgrade.data6 import Project

FEW = 20
"""Projects that may be left for the last pass."""
PASSES = 10
"""Passes that go on while commits do."""
STOPPING = 30.0
"""Seconds that the old server may take to stop after the last pass."""
_CARRIED = "carried.json"
_PROOF = (PrivateFile.ROOT_PASSWORD, PrivateFile.SECRET, PrivateFile.PROOF_KEY)
"""Private files that the new server needs to be proved before the switch."""


def measure(serverdir: Path) -> dict[str, object]:
    """What an upgrade of this data takes; nothing is changed. Raises Refusal."""
    layout = (prepare.layout_of(serverdir) or "").partition(".")[0]
    if prepare.uuid_of(serverdir) is None or not layout:
        raise Refusal(f"{serverdir} holds no data of devpi", hint="name the server directory", code=ExitCode.REFUSED)
    usage = os.statvfs(serverdir)
    file = stored.database_of(layout, serverdir)
    with stored.connect(file) as connection:
        files = list(stored.stored(connection, layout=layout))
    return {
        "layout": layout,
        "server_version": server_version(),
        "unfinished": sets.unfinished(serverdir),
        "kept": [about.name for about in sets.kept(serverdir) if not about.left],
        "left": [about.name for about in sets.kept(serverdir) if about.left],
        "uploads": sum(not file.mirror for file in files),
        "cached": sum(file.mirror for file in files),
        "database_bytes": file.stat().st_size,
        # a copy of the database, the new one, and its journal
        "needed_bytes": 4 * file.stat().st_size + (64 << 20),
        "free_bytes": usage.f_bavail * usage.f_frsize,
        "free_inodes": usage.f_favail,
    }


def convert(serverdir: Path) -> dict[str, object]:
    """Carry everything to a new server directory inside ``serverdir``. Raises Refusal."""
    _check(serverdir)
    target = sets.next_of(serverdir)
    if target.exists():
        _clear(target)
    sets.prune(serverdir)
    target.mkdir(mode=0o700)
    started = time.monotonic()
    with prepare.locked(target) as private:
        write_private(private.moving, f"{serverdir}\n")  # until it is whole, no server starts on it
        for secret in _PROOF:
            with contextlib.suppress(FileNotFoundError):
                write_private(target / secret.relative, (serverdir / secret.relative).read_bytes())
        carrier = _begun(serverdir, target, private)
        carried, passes = _passes(serverdir, target, carrier)
        found = _verify(target, carried)
        remove(private.moving)
    (serverdir / UpgradePath.PROGRESS).unlink(missing_ok=True)
    return {"passes": passes, **found, "seconds": round(time.monotonic() - started, 2)}


def _clear(target: Path) -> None:
    """Remove what an interrupted run has left. Raises Refusal while that run goes on."""
    try:
        with prepare.locked(target, any_layout=True):
            shutil.rmtree(target)
    except Refusal as refusal:
        if refusal.code != ExitCode.CONFLICT:
            raise
        raise Refusal(
            f"another upgrade of {target.parent.parent} is under way",
            hint="wait half a minute, then run deployer upgrade again",
            code=ExitCode.LOCKED,
        ) from None


def finish(serverdir: Path) -> dict[str, object]:
    """Carry the rest while commits are held back, wait until no server runs, and let the two sets change places.

    Raises Refusal; then the old set is served as before.
    """
    if sets.resume(serverdir):
        return {"resumed": True}
    _check(serverdir)
    target = sets.next_of(serverdir)
    if not (target / _CARRIED).exists():
        raise Refusal(f"{target} is not whole", hint="run deployer upgrade again", code=ExitCode.CONFLICT)
    held = serverdir / UpgradePath.HELD
    held.unlink(missing_ok=True)
    with prepare.locked(target) as private:
        carrier = _carrier(serverdir, target, _plugins(private), _silent)
        with stored.connect(target / installed().database) as connection:
            before = stored.serial(connection)
        carried, _ = _passes(serverdir, target, carrier)  # the last one is short then
        with database.writers_held(serverdir / DEVPI_6.database):
            started = time.monotonic()
            carried |= _next_pass(serverdir, target, carrier, live=True) or {}
            found = _verify(target, carried, since=before)
            seconds = time.monotonic() - started
            try:
                write_private(held, "")
                with prepare.locked(serverdir, any_layout=True, patience=STOPPING):
                    with contextlib.suppress(FileNotFoundError):
                        (target / _CARRIED).unlink()
                    kept = sets.switch(serverdir, target, server_version=DEVPI_6.major)
            finally:
                held.unlink(missing_ok=True)
                (serverdir / UpgradePath.PROGRESS).unlink(missing_ok=True)
    return {**found, "resumed": False, "kept": kept, "held_seconds": round(seconds, 3)}


def _check(serverdir: Path) -> None:
    layout = (prepare.layout_of(serverdir) or "").partition(".")[0]
    if layout != DEVPI_6.layout or installed().major != "7":
        raise Refusal(
            f"{serverdir} holds data of layout {layout or 'nothing'}, and this is devpi-server {server_version()}",
            hint="convert data of devpi-server 6 with devpi-server 7",
            code=ExitCode.REFUSED,
        )


def _begun(serverdir: Path, target: Path, private: Private) -> Any:
    """A new, empty server directory, open for the carrier."""
    from devpi_server.init import init

    from deployer.server.devpi import passwords

    plugins = _plugins(private)
    write_private(target / prepare.LAYOUTFILE, installed().layout)
    words = ["devpi-init", "--serverdir", str(target), "--no-root-pypi", "--root-passwd-hash"]
    with contextlib.redirect_stdout(sys.stderr):
        if init(pluginmanager=plugins, argv=[*words, passwords.hash_random(os.urandom(16).hex())]):
            raise Refusal(f"can't initialise {target}", hint="read the log lines above", code=ExitCode.INTERNAL)
    with stored.connect(serverdir / DEVPI_6.database) as connection:
        total = sum(1 for _ in stored.stored(connection, layout=DEVPI_6.layout))
    return _carrier(serverdir, target, plugins, _progress(serverdir, total))


def _plugins(private: Private) -> Any:
    from deployer.server.boot.run import plugins_of
    from deployer.server.devpi import replacements
    from deployer.server.upstream.credentials import Credentials

    credentials = Credentials(private.credentials)
    replacements.install(credentials.header, web=False)
    return plugins_of(credentials, web=False)


def _carrier(serverdir: Path, target: Path, plugins: Any, progress: Callable[[int], None]) -> Any:
    from devpi_server.config import parseoptions
    from devpi_server.main import xom_from_config

    from deployer.server.upgrade.carry import Carrier, arguments
    from deployer.server.upgrade.new_keys import answer_at_once

    xom = xom_from_config(parseoptions(plugins, arguments(target)))
    answer_at_once(xom, target / installed().database)
    return Carrier(xom, serverdir / stored.FILES, progress=progress)


@dataclass(frozen=True)
class _Carried:
    """What the target must have of one project. ``uploads``: their descriptions; ``cached``: files of a mirror."""

    uploads: Sequence[Mapping[str, Any]]
    cached: int


def _passes(serverdir: Path, target: Path, carrier: Any) -> tuple[dict[Project, _Carried], int]:
    """Passes until few projects are left; what they carried, and their number."""
    carried: dict[Project, _Carried] = {}
    number, last = 0, None
    while number < PASSES and (last is None or len(last) > FEW):
        number, last = number + 1, _next_pass(serverdir, target, carrier)
        carried |= last or {}
    return carried, number


def _next_pass(serverdir: Path, target: Path, carrier: Any, *, live: bool = False) -> dict[Project, _Carried] | None:
    """Carry what was committed since the last pass; None when it has to be repeated.

    ``live``: no commits happen, so no copy is needed. Raises Refusal then.
    """
    from deployer.server.upgrade.carry import FileGone

    with (
        _database(serverdir, target, live=live) as path,
        stored.connect(path) as connection,
        data6.as_of_one_moment(connection),
    ):
        data = data6.overview(connection, since=_last_serial(target))
        due = carrier.settle(data)
        data6.fill(connection, data, due)
    carried = {place: _Carried(tuple(data.files.get(place, ())), len(data.mirrored.get(place, ()))) for place in due}
    try:
        carrier.carry(data, due)
    except FileGone as gone:
        if live:
            raise Refusal(
                f"the upload {gone} is missing in {serverdir}",
                hint="deployer check --repair",
                code=ExitCode.VERIFICATION,
            ) from None
        return None  # it was deleted since: the next pass begins where this one did
    write_private(target / _CARRIED, json.dumps({"serial": data.serial}) + "\n")
    return carried


@contextlib.contextmanager
def _database(serverdir: Path, target: Path, *, live: bool) -> Iterator[Path]:
    source, copied = serverdir / DEVPI_6.database, target / "old-database"
    if live:
        yield source
        return
    database.copy(source, copied)
    try:
        yield copied
    finally:
        copied.unlink()


def _last_serial(target: Path) -> int:
    try:
        return int(parsed((target / _CARRIED).read_bytes())["serial"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return -1


def _verify(target: Path, carried: Mapping[Project, _Carried], *, since: int = -1) -> dict[str, object]:
    """Compare the target with what was ``carried``: every upload by its hash. Those that are not among the files after
    the target's serial ``since`` were carried before, and take a look at all of them. Raises Refusal.
    """
    wanted = [one for project in carried.values() for one in project.uploads]
    with stored.connect(target / installed().database) as connection:
        uploads, cached = stored.counted(connection)
        missing = _missing(connection, wanted, since=since)
        if missing and since >= 0:
            missing = _missing(connection, missing)
    for one in missing:
        raise Refusal(
            f"the upload {one['relpath']} was not carried over",
            hint="the server serves as before; deployer check",
            code=ExitCode.VERIFICATION,
        )
    wheels = sorted(str(one["relpath"]) for one in wanted if str(one["relpath"]).endswith(".whl"))
    return {
        "uploads": uploads,
        "cached": cached,
        "left_out": max(0, sum(project.cached for project in carried.values()) - cached),
        "wheel": wheels[0] if wheels else "",
    }


def _missing(
    connection: sqlite3.Connection, wanted: Sequence[Mapping[str, Any]], *, since: int = -1
) -> list[Mapping[str, Any]]:
    """Those of the ``wanted`` uploads that no commit after ``since`` has stored, by their path or name and hash."""
    there = dict(stored.changed(connection, since=since)) if wanted else {}
    known = {
        ("/".join(path.split("/")[:2]), path.rpartition("/")[2], file.sha256)
        for path, file in there.items()
        if file is not None
    }
    found = []
    for one in wanted:
        path = str(one["relpath"])
        digest = ((one.get("entrymapping") or {}).get("hashes") or {}).get("sha256")
        if there.get(path) is None and ("/".join(path.split("/")[:2]), path.rpartition("/")[2], digest) not in known:
            found.append(one)
    return found


def _progress(serverdir: Path, total: int) -> Callable[[int], None]:
    """Write to a file how far it is: the run's output is read at its end."""

    def say(files: int) -> None:
        write_private(serverdir / UpgradePath.PROGRESS, f"{files} of {total} files\n", durable=False)

    return say


def _silent(_files: int) -> None:
    """Nobody waits for the figures of a short pass."""
