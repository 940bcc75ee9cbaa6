"""What files of a page were when they were seen first: an upstream must not replace them without notice.

The page that is kept is itself the record. Beside it stand the files that the page no longer has, or has with another
hash, as they were at first. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.server.json_text import dumps, loads

File = dict[str, Any]

MOST = 5_000
"""Files that are remembered of one page besides those that it has: an upstream may send anything."""
_FEW = 5
"""Names that are looked for in the text of each line; with more, all lines are read."""
_REMEMBERED = ("filename", "url", "hashes", "upload-time")


def firsts(before: Mapping[str, File], old: bytes, new: bytes) -> dict[str, File]:
    """By name, the files as they were at first that a new page lacks, or has with another hash.

    ``before``: those of the page before. ``old``, ``new``: the file objects of both pages as JSON, one a line.
    """
    now = new.splitlines()
    lost = set(old.splitlines()).difference(now)
    if not lost and not before:
        return {}
    found: dict[str, File] = {**before}
    for line in sorted(lost):
        file = loads(line)
        if file["filename"] not in found and len(found) < MOST:
            found[file["filename"]] = {key: file[key] for key in _REMEMBERED if key in file}
    named = {dumps(name) for name in found}
    known: dict[str, list[File]] = {}
    for file in (loads(line) for line in now if len(named) >= _FEW or any(name in line for name in named)):
        known.setdefault(file["filename"], []).append(file)
    return {
        name: first
        for name, first in found.items()
        if name not in known or any(differs(first, file) for file in known[name])
    }


def differs(first: Mapping[str, Any], file: Mapping[str, Any]) -> bool:
    """Whether two files have different hashes of the same kind."""
    return any(file["hashes"].get(kind, value) != value for kind, value in first["hashes"].items())
