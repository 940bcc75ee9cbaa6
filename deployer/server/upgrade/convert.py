"""Convert the data of devpi-server 6 for devpi-server 7, while a server may run on it.

The first pass carries everything as of one moment, each further one what was committed meanwhile. The last pass holds
commits back: what is acknowledged by then is carried, and what is not yet is never acknowledged by the old server.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployer.protocol import ExitCode, PrivateFile, Refusal, UpgradePath, parsed
from deployer.server.backup import database
from deployer.server.boot import prepare
from deployer.server.devpi import stored
from deployer.server.devpi.installed import DEVPI_6, installed, server_version
from deployer.server.secret_files import Private, remove, write_private
from deployer.server.upgrade import sets
from deployer.server.upgrade.data6 import Data, read

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
    target.mkdir(mode=0o700)
    started = time.monotonic()
    with prepare.locked(target) as private:
        write_private(private.moving, f"{serverdir}\n")  # until it is whole, no server starts on it
        for secret in _PROOF:
            with contextlib.suppress(FileNotFoundError):
                write_private(target / secret.relative, (serverdir / secret.relative).read_bytes())
        carrier = _begun(serverdir, target, private)
        data, passes = _passes(serverdir, target, carrier)
        found = _verify(serverdir, target, data)
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
        carrier = _opened(serverdir, target, private)
        with database.writers_held(serverdir / DEVPI_6.database):
            started = time.monotonic()
            data = _next_pass(serverdir, target, carrier, live=True)
            found = _verify(serverdir, target, data)
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
    return _carrier(serverdir, target, plugins)


def _opened(serverdir: Path, target: Path, private: Private) -> Any:
    return _carrier(serverdir, target, _plugins(private))


def _plugins(private: Private) -> Any:
    from deployer.server.boot.run import plugins_of
    from deployer.server.devpi import replacements
    from deployer.server.upstream.credentials import Credentials

    credentials = Credentials(private.credentials)
    replacements.install(credentials.header, web=False)
    return plugins_of(credentials, web=False)


def _carrier(serverdir: Path, target: Path, plugins: Any) -> Any:
    from devpi_server.config import parseoptions
    from devpi_server.main import xom_from_config

    from deployer.server.upgrade.carry import Carrier, arguments
    from deployer.server.upgrade.new_keys import answer_at_once

    xom = xom_from_config(parseoptions(plugins, arguments(target)))
    answer_at_once(xom, target / installed().database)
    with stored.connect(serverdir / DEVPI_6.database) as connection:
        total = sum(1 for _ in stored.stored(connection, layout=DEVPI_6.layout))
    return Carrier(xom, serverdir / stored.FILES, progress=_progress(serverdir, total))


def _passes(serverdir: Path, target: Path, carrier: Any) -> tuple[Data, int]:
    """Passes until few projects are left; the data of the last one."""
    number, data = 1, _next_pass(serverdir, target, carrier)
    while len(data.touched) > FEW and number < PASSES:
        number, data = number + 1, _next_pass(serverdir, target, carrier)
    return data, number


def _next_pass(serverdir: Path, target: Path, carrier: Any, *, live: bool = False) -> Data:
    """Carry what was committed since the last pass. ``live``: no commits happen, so no copy is needed."""
    from deployer.server.upgrade.carry import FileGone

    since = _carried(target)
    with _database(serverdir, target, live=live) as path, stored.connect(path) as connection:
        data = read(connection, since=since)
    try:
        carrier.carry(data)
    except FileGone as gone:
        if live:
            raise Refusal(
                f"the upload {gone} is missing in {serverdir}",
                hint="deployer check --repair",
                code=ExitCode.VERIFICATION,
            ) from None
        return data  # it was deleted since: the next pass begins where this one did
    write_private(target / _CARRIED, json.dumps({"serial": data.serial}) + "\n")
    return data


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


def _carried(target: Path) -> int:
    try:
        return int(parsed((target / _CARRIED).read_bytes())["serial"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return -1


def _verify(serverdir: Path, target: Path, data: Data) -> dict[str, object]:
    """Compare what was carried with what ``data`` has: every upload by its hash. Raises Refusal."""
    with stored.connect(target / installed().database) as connection:
        there = list(stored.stored(connection))
    known = {("/".join(file.path.split("/")[:2]), file.path.rpartition("/")[2], file.sha256) for file in there}
    present = {file.path for file in there}
    uploads = [one for found in data.files.values() for one in found]
    for one in uploads:
        path = str(one["relpath"])
        wanted = (one.get("entrymapping") or {}).get("hashes") or {}
        digest = wanted.get("sha256")
        name = path.rpartition("/")[2]
        index = "/".join(path.split("/")[:2])
        if path not in present and (index, name, digest) not in known:
            raise Refusal(
                f"the upload {path} was not carried over",
                hint="the server serves as before; deployer check",
                code=ExitCode.VERIFICATION,
            )
    wheels = sorted(str(one["relpath"]) for one in uploads if str(one["relpath"]).endswith(".whl"))
    cached = sum(file.mirror for file in there)
    wanted_cached = sum(len(found) for found in data.mirrored.values())
    return {
        "uploads": len(uploads),
        "cached": cached,
        "left_out": max(0, wanted_cached - cached),
        "wheel": wheels[0] if wheels else "",
        "serial": data.serial,
    }


def _progress(serverdir: Path, total: int) -> Callable[[int], None]:
    """Write to a file how far it is: the run's output is read at its end."""

    def say(files: int) -> None:
        write_private(serverdir / UpgradePath.PROGRESS, f"{files} of {total} files\n", durable=False)

    return say
