"""``deployer backup``: what its verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployer.protocol import Backup


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Options of a command on a directory of backups."""

    directory: Annotated[
        str, Option("--directory", metavar="DIR", help="Directory of the backups; default: backup.directory.")
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Chosen(Placed):
    """Options of a command on one backup."""

    backup: Annotated[str, Option("--backup", metavar="NAME", help="Name of the backup; default: the last one.")] = (
        "latest"
    )
    identity: Annotated[
        str, Option("--identity", metavar="FILE", help="File of age-keygen that decrypts the secrets.")
    ] = ""


def table(backups: list[Backup]) -> str:
    """Return the backups as lines for people."""
    from deployer.diagnosis import size

    lines = [f"{'NAME':<22}  {'FILES':>7}  {'SIZE':>9}  {'DEVPI':<8}  CONTENT"]
    for one in backups:
        content = "uploads and caches" if one.cache else "uploads"
        content += ", secrets" if one.secrets else ""
        content += f", {len(one.lost)} lost" if one.lost else ""
        lines.append(f"{one.name:<22}  {one.files:>7}  {size(one.size):>9}  {one.server_version:<8}  {content}")
    return "\n".join(lines)


def lost_error(made: Mapping[str, object], uploads: list[str]) -> str:
    """The message for a backup of data that the server has lost files of."""
    more = f", and {len(uploads) - 1} more" if len(uploads) > 1 else ""
    return f"the backup {made['name']} is complete, but the server has lost uploads: {uploads[0]}{more}"
