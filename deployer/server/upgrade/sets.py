"""Sets of data in one server directory: the one that is served, and those that are kept for a way back.

A set is all that devpi keeps; deployer's own files (keys, pages of upstreams, statistics) belong to every set. Sets
change places by renames. ``switch.json`` says which, so that a run that was killed is finished by the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer import __version__
from deployer.protocol import PRIVATE, ExitCode, Refusal, UpgradePath, parsed
from deployer.server.boot.prepare import LAYOUTFILE, layout_of, uuid_of
from deployer.server.secret_files import remove, sync, write_private

ABOUT = "about.json"
_STAY = frozenset({PRIVATE, "lost+found"})


@dataclass(frozen=True, kw_only=True)
class About:
    """A set that is kept. ``name``: its directory. ``left``: it was left by a rollback, and is not one's goal."""

    name: str
    layout: str
    uuid: str
    kept: str
    server_version: str
    deployer: str = __version__
    left: bool = False


def next_of(serverdir: Path) -> Path:
    """The server directory that an upgrade writes."""
    return serverdir / UpgradePath.NEXT


def kept(serverdir: Path) -> list[About]:
    """The sets that are kept, oldest first. One without its description is unfinished, and none."""
    found = []
    for path in sorted((serverdir / UpgradePath.FORMER).glob(f"*/{ABOUT}")):
        try:
            found.append(About(**parsed(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue
    return found


def prune(serverdir: Path) -> list[str]:
    """Remove all sets but the last one of before an upgrade and the last one that a rollback left; their names.

    It is called before an upgrade adds one: the way back stays, whatever becomes of that upgrade.
    """
    known = kept(serverdir)
    last = {about.left: about.name for about in known}
    removed = [about.name for about in known if about.name != last[about.left]]
    for name in removed:
        directory = serverdir / UpgradePath.FORMER / name
        (directory / ABOUT).unlink()  # what is left of it, if this is killed, is cleared as unfinished
        shutil.rmtree(directory, ignore_errors=True)
    return removed


def reserve(serverdir: Path) -> Path:
    """A new directory for a set, of mode 0700; it counts as none until it is described."""
    former = serverdir / UpgradePath.FORMER
    former.mkdir(mode=0o700, exist_ok=True)
    for path in former.iterdir():
        if path.is_dir() and not (path / ABOUT).exists() and not _planned(serverdir, path):
            shutil.rmtree(path, ignore_errors=True)  # of a snapshot that was killed
    number = 1 + max((int(path.name) for path in former.iterdir() if path.name.isdecimal()), default=0)
    made = former / f"{number:03}"
    made.mkdir(mode=0o700)
    return made


def _planned(serverdir: Path, path: Path) -> bool:
    journal = _journal(serverdir)
    return journal is not None and path.name == journal["out"]


def describe(directory: Path, *, server_version: str, left: bool = False) -> About:
    """Complete the set in ``directory``. ``server_version``: of the server that wrote it."""
    about = About(
        name=directory.name,
        layout=(layout_of(directory) or "").partition(".")[0],
        uuid=uuid_of(directory) or "",
        kept=datetime.now(UTC).isoformat(timespec="seconds"),
        server_version=server_version,
        left=left,
    )
    write_private(directory / ABOUT, json.dumps(asdict(about)) + "\n")
    return about


def switch(serverdir: Path, incoming: Path, *, left: bool = False, server_version: str) -> str:
    """Keep the set that is served, and serve ``incoming`` instead; the name of the set that is kept. No server runs.

    ``left``: the present set is left by a rollback. ``server_version``: of the server that wrote it.
    """
    out = reserve(serverdir)
    _write(
        serverdir,
        {
            "phase": "out",
            "out": out.name,
            "in": str(incoming.relative_to(serverdir)),
            "left": left,
            "server_version": server_version,
        },
    )
    resume(serverdir)
    return out.name


def unfinished(serverdir: Path) -> bool:
    """Whether sets are changing places: no server may start."""
    return (serverdir / UpgradePath.SWITCH).exists()


def resume(serverdir: Path) -> bool:
    """Finish a change of places that was begun; whether there was one. Raises Refusal."""
    journal = _journal(serverdir)
    if journal is None:
        return False
    out, incoming = serverdir / UpgradePath.FORMER / journal["out"], serverdir / journal["in"]
    if journal["phase"] == "out":
        out.mkdir(mode=0o700, exist_ok=True)
        _move(serverdir, out)
        describe(out, server_version=journal["server_version"], left=journal["left"])
        journal = {**journal, "phase": "in"}
        _write(serverdir, journal)
    if incoming.is_dir():
        (incoming / ABOUT).unlink(missing_ok=True)
        _move(incoming, serverdir)
        shutil.rmtree(incoming)
    remove(serverdir / UpgradePath.SWITCH)
    return True


def _move(source: Path, target: Path) -> None:
    for name in _entries(source):
        (source / name).replace(target / name)
    sync(target)
    sync(source)


def _entries(directory: Path) -> Iterator[str]:
    """The names of a set, the file with its layout last: until then the directory is not taken for an empty one."""
    names = sorted(entry.name for entry in os.scandir(directory) if entry.name not in _STAY)
    yield from (name for name in names if name not in (LAYOUTFILE, ABOUT))
    yield from (name for name in names if name == LAYOUTFILE)


def _write(serverdir: Path, journal: Mapping[str, object]) -> None:
    write_private(serverdir / UpgradePath.SWITCH, json.dumps(dict(journal)) + "\n")


def _journal(serverdir: Path) -> dict[str, Any] | None:
    path = serverdir / UpgradePath.SWITCH
    try:
        found = parsed(path.read_bytes())
        return {name: found[name] for name in ("phase", "out", "in", "left", "server_version")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise Refusal(
            f"{path} is damaged", hint="restore a backup: deployer backup restore --replace", code=ExitCode.VERIFICATION
        ) from None
