"""Who served the projects of ordered indexes first (:mod:`deployer.server.guard.owners`), as a list in a backup."""

from __future__ import annotations

from pathlib import Path

from deployer.server.backup.repository import Damaged
from deployer.server.guard import owners
from deployer.server.secret_files import write_cached


def listed(directory: Path) -> bytes:
    """All records below ``directory``; empty without any."""
    return owners.listed(directory).encode()


def put_back(directory: Path, content: bytes) -> None:
    """Write the records of a backup. Raises Damaged."""
    try:
        for (index, project), owner in owners.read(content.decode()).items():
            write_cached(directory / index / project, f"{owner}\n".encode())
    except ValueError as error:
        raise Damaged(f"the list of owners is damaged: {str(error)[:80]!r}") from None
