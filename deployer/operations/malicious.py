"""Give a server the list of releases that are known to be malicious, from files in OSV's format."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.devpi.malicious import Collected, collect
from deployer.errors import ConflictError, UsageError
from deployer.protocol import PrivateFile, parsed

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment

_FILE = PrivateFile.MALICIOUS.relative
LARGEST = 64 << 20
"""Bytes of the largest record file that is read."""


def read(paths: Iterable[Path]) -> Collected:
    """The releases that files of JSON, archives of them (ZIP), and directories with such files name.

    Raises UsageError for a path without a record.
    """
    return collect(record for path in paths for record in _records(path))


def _records(path: Path) -> Iterator[object]:
    try:
        if path.is_dir():
            found = sorted(one for one in path.rglob("*.json") if one.is_file())
            if not found:
                raise UsageError(
                    f"{path} has no file *.json", hint="name files in OSV's format, or a ZIP archive of them"
                )
            for one in found:
                yield _parsed(one.read_bytes(), str(one))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith(".json") and entry.file_size <= LARGEST:
                        yield _parsed(archive.read(entry), f"{path}: {entry.filename}")
        else:
            yield _parsed(path.read_bytes(), str(path))
    except (OSError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} can't be read: {why}", hint="name files in OSV's format") from None


def _parsed(content: bytes, name: str) -> object:
    try:
        found: object = parsed(content)
    except ValueError:
        raise UsageError(f"{name} is not JSON", hint="name files in OSV's format, or a ZIP archive of them") from None
    return found


def known(deployment: Deployment) -> Collected:
    """The list that the server has."""
    if deployment.server_dir is None:
        raise ConflictError(f"{deployment.name} has no data directory", hint="deployer up")
    try:
        found = parsed(deployment.server_dir.read(_FILE) or "{}")
        return Collected(int(found.get("advisories", 0)), dict(found.get("names", {})))
    except (ValueError, TypeError, AttributeError):
        return Collected()


def give(deployment: Deployment, wanted: Collected) -> bool:
    """Replace the server's list; the next request uses it. Returns whether the list changed.

    Raises EngineError, ConflictError.
    """
    from deployer.operations.status import ask

    if known(deployment) == wanted:
        return False
    assert deployment.server_dir is not None  # noqa: S101 - known() has read in it
    deployment.server_dir.write(_FILE, json.dumps(wanted.json) + "\n", verb=("store", "malicious"))
    ask(deployment.url)  # the server reads the file before it answers
    return True
