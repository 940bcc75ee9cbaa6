"""Who served the projects of ordered indexes first (:mod:`deployer.server.guard.owners`), as a list in a backup.

A line has the owner, two spaces, and the path of its record: ``USER/INDEX/PROJECT``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from deployer.server.backup.repository import Damaged
from deployer.server.secret_files import write_cached


def listed(directory: Path) -> bytes:
    """All records below ``directory``; empty without any."""
    lines = []
    for path in directory.glob("*/*/[!.]*"):
        with contextlib.suppress(OSError, UnicodeError):  # forgotten meanwhile
            lines.append(f"{path.read_text(encoding='utf-8').strip()}  {path.relative_to(directory)}\n")
    return "".join(sorted(lines)).encode()


def put_back(directory: Path, content: bytes) -> None:
    """Write the records of a backup. Raises Damaged."""
    try:
        for line in content.decode().splitlines():
            owner, _, path = line.partition("  ")
            parts = path.split("/")
            if len(parts) != 3 or not all(parts) or set(parts) & {".", ".."} or "\0" in path:
                raise ValueError(path)
            write_cached(directory.joinpath(*parts), f"{owner}\n".encode())
    except ValueError as error:
        raise Damaged(f"the list of owners is damaged: {str(error)[:80]!r}") from None
