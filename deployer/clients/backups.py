"""Backups of client files, kept until they are restored: the original bytes and mode, and what deployer wrote.

They are private (a 0700 directory, 0600 files), because a client file may hold a password.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployer.clients import files
from deployer.errors import ClientFileError
from deployer.protocol import parsed

SCHEMA = 1
KEPT_WRITES = 50


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write of deployer: the digest of the content, and the values that were set."""

    sha256: str
    values: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Backup:
    """The file ``path`` (symlinks resolved) as it would be without deployer; ``original=None``: no file.

    ``made``: the directories that deployer created for it, the outermost first. ``part``: the client, of a file that
    several clients share; each has a record of its own there.
    """

    path: Path
    original: bytes | None = field(repr=False)
    mode: int = 0o644
    made: tuple[Path, ...] = ()
    writes: tuple[Write, ...] = ()
    part: str = ""

    def wrote(self, content: bytes | None) -> bool:
        """Whether deployer wrote exactly this ``content``."""
        return content is not None and sha256(content) in {write.sha256 for write in self.writes}

    @property
    def values(self) -> tuple[Mapping[str, str], ...]:
        """The values of every write."""
        return tuple(write.values for write in self.writes)

    def with_write(self, content: bytes, values: Mapping[str, str]) -> Backup:
        """The record with one more write."""
        write = Write(sha256=sha256(content), values=dict(values))
        others = tuple(known for known in self.writes if known != write)
        return replace(self, writes=(*others, write)[-KEPT_WRITES:])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file(path: Path, state: Path, part: str) -> Path:
    return state / f"{files.digest(path)}{f'-{part}' if part else ''}.json"


def load(path: Path, *, state: Path, part: str = "") -> Backup | None:
    """Load the record of the file ``path``, or of a part of it; ``None`` when deployer has not written it.

    Raises ClientFileError when the record is damaged or was written by a newer deployer.
    """
    file = _file(path, state, part)
    content = files.read_bytes(file)
    if content is None:
        return None
    try:
        record = parsed(content)
        if record["schema"] > SCHEMA:
            raise ClientFileError(f"{file} was written by a newer deployer", hint="upgrade deployer")
        original = record["original"]
        return Backup(
            path=Path(record["path"]),
            original=None if original is None else base64.b64decode(original, validate=True),
            mode=int(record["mode"]),
            made=tuple(Path(folder) for folder in record["made"]),
            part=part,
            writes=tuple(Write(sha256=write["sha256"], values=dict(write["values"])) for write in record["writes"]),
        )
    except (ValueError, KeyError, TypeError):
        raise ClientFileError(
            f"{file}, the backup of {path}, is damaged", hint=f"correct {path} by hand, then: rm {file}"
        ) from None


def save(backup: Backup, *, state: Path) -> Path:
    """Store ``backup`` and return the path of its record. Raises ClientFileError."""
    record = {
        "schema": SCHEMA,
        "path": str(backup.path),
        "original": None if backup.original is None else base64.b64encode(backup.original).decode(),
        "mode": backup.mode,
        "made": [str(folder) for folder in backup.made],
        "writes": [{"sha256": write.sha256, "values": dict(write.values)} for write in backup.writes],
    }
    file = _file(backup.path, state, backup.part)
    content = (json.dumps(record, indent=1) + "\n").encode()
    files.replace(file, content, expected=files.read_bytes(file), mode=0o600)
    return file


def drop(backup: Backup, *, state: Path) -> None:
    """Remove the record of a restored file."""
    _file(backup.path, state, backup.part).unlink(missing_ok=True)


def paths(state: Path) -> tuple[Path, ...]:
    """The files that deployer has written and not restored; a damaged record is left out."""
    found = []
    for file in sorted(state.glob("*.json")):
        try:
            found.append(Path(parsed(files.read_bytes(file) or b"")["path"]))
        except (ClientFileError, ValueError, KeyError, TypeError):
            continue
    return tuple(found)
