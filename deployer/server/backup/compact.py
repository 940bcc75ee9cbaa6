"""Write the database of a stopped server anew: SQLite gives no space back by itself. Standard library only."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from deployer.protocol import ExitCode, Refusal
from deployer.server.backup.repository import Damaged
from deployer.server.boot import prepare
from deployer.server.devpi import stored
from deployer.server.secret_files import sync


def compact(serverdir: Path) -> dict[str, object]:
    """Write the database anew, check it, and put it in the place of the old one by one rename. Raises Refusal."""
    with prepare.locked(serverdir) as private:
        prepare.repair(serverdir, private)
        path = stored.database(serverdir)
        if not path.exists():
            raise Refusal(
                f"{serverdir} holds no data of devpi", hint="name the server directory", code=ExitCode.REFUSED
            )
        before, made = stored.sizes(path), path.with_name(f"{path.name}.compact")
        made.unlink(missing_ok=True)
        try:
            _write(path, made)
            made.replace(path)
            sync(serverdir)
        except (sqlite3.DatabaseError, OSError, Damaged) as error:
            raise Refusal(
                f"{path} can't be compacted: {error}",
                hint="free as much space as the database takes; it is unchanged",
                code=ExitCode.REFUSED,
            ) from None
        finally:
            made.unlink(missing_ok=True)
    return {"before_bytes": before["bytes"], "after_bytes": path.stat().st_size, "unused_bytes": before["free_bytes"]}


def _write(path: Path, made: Path) -> None:
    with stored.connect(path) as connection:
        connection.execute("vacuum into ?", (str(made),))
    with stored.connect(made) as connection:
        problem = next(row[0] for row in connection.execute("pragma integrity_check(1)"))
    if problem != "ok":
        raise Damaged(problem)
    descriptor = os.open(made, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
