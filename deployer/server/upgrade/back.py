"""Keep a set of data before an upgrade that needs no conversion, and go back to the last set that is kept."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from deployer.protocol import ExitCode, Refusal, UpgradePath
from deployer.server.backup import database
from deployer.server.boot import prepare
from deployer.server.devpi import stored
from deployer.server.devpi.installed import server_version
from deployer.server.devpi.stored import FILES
from deployer.server.upgrade import sets

TRIES = 5
_SMALL = (prepare.NODEINFO, prepare.LAYOUTFILE, ".event_serial")


def snapshot(serverdir: Path) -> dict[str, object]:
    """Keep the set as it is, while a server may run on it: a copy of the database, and hard links. Raises Refusal."""
    layout = _layout(serverdir)
    sets.prune(serverdir)
    for _ in range(TRIES):
        made = sets.reserve(serverdir)
        database.copy(stored.database_of(layout, serverdir), stored.database_of(layout, made))
        if _linked(serverdir, made, layout):
            for name in _SMALL:
                if (serverdir / name).exists():
                    shutil.copy2(serverdir / name, made / name)
            os.sync()
            sets.describe(made, server_version=server_version())
            return {"kept": made.name}
    raise Refusal(
        f"files are deleted from {serverdir} all the time", hint="run deployer check", code=ExitCode.VERIFICATION
    )


def _linked(serverdir: Path, made: Path, layout: str) -> bool:
    """Link every file that the copied database knows; False when an upload was deleted meanwhile."""
    with stored.connect(stored.database_of(layout, made)) as connection:
        for file in stored.stored(connection, layout=layout):
            target = made / FILES / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            deadline = time.monotonic() + 2.0  # devpi renames a file after its commit
            while not (serverdir / FILES / file.path).exists() and not file.mirror and time.monotonic() < deadline:
                time.sleep(0.05)
            try:
                os.link(serverdir / FILES / file.path, target)
            except FileNotFoundError:
                if not file.mirror:
                    return False
    return True


def resume(serverdir: Path) -> dict[str, object]:
    """Finish what an interrupted run has begun. No server runs."""
    with prepare.locked(serverdir, any_layout=True):
        return {"resumed": sets.resume(serverdir), "layout": _layout(serverdir)}


def back(serverdir: Path, name: str, *, aside: Path | None) -> dict[str, object]:
    """Go back to the set ``name``; uploads that it lacks are copied to ``aside``. No server runs. Raises Refusal."""
    with prepare.locked(serverdir, any_layout=True):
        sets.resume(serverdir)
        goal = next((about for about in sets.kept(serverdir) if about.name == name), None)
        if goal is None:
            raise Refusal(
                f"{serverdir} keeps no data {name!r}",
                hint="restore a backup: deployer backup restore --replace",
                code=ExitCode.CONFLICT,
            )
        directory = serverdir / UpgradePath.FORMER / goal.name
        lost = _uploads(serverdir, _layout(serverdir)) - _uploads(directory, goal.layout)
        if aside is not None:
            for path, _ in sorted(lost):
                _keep(serverdir / FILES / path, aside / _place(path))
        left = sets.switch(serverdir, directory, left=True, server_version=server_version())
        return {
            "kept": left,
            "lost": [str(_place(path)) for path, _ in sorted(lost)],
            "layout": goal.layout,
        }


def _uploads(directory: Path, layout: str) -> set[tuple[str, str]]:
    with stored.connect(stored.database_of(layout, directory)) as connection:
        files = list(stored.stored(connection, layout=layout))
    return {(file.path, file.sha256 or "") for file in files if not file.mirror and _is_release(file.path)}


def _is_release(path: str) -> bool:
    return ".toxresult-" not in path


def _place(path: str) -> Path:
    """Where an upload is kept aside: by its index, under its name."""
    user, index = path.split("/")[:2]
    return Path(user) / index / path.rpartition("/")[2]


def _keep(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _layout(serverdir: Path) -> str:
    return (prepare.layout_of(serverdir) or "").partition(".")[0]
