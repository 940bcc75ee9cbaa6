"""``deployer adopt``: take over the packages of a directory, of another index, or of another devpi."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.adopt import Adopted


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    source: Annotated[str, Argument(metavar="DIR|URL", help="Directory of packages, simple URL, or devpi index.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Stage to upload to, else the clients' one.")] = (
        ""
    )
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be uploaded; change nothing.")] = False


def run(options: Options, ui: UI) -> Result:
    """Upload packages of a directory or index to a stage.

    A file that is there with the same hash is skipped, so a second run goes on where the first one ended. A file with
    the same name and other content is a conflict (exit code 5): then nothing is uploaded. Files that are no valid
    wheels or sdists are named and left out (exit code 9). Only the given directory or server is read.
    """
    from deployer.devpi.admission import require_index
    from deployer.errors import Refused
    from deployer.operations import adopt_sources
    from deployer.operations.adopt import adopt, upstreams

    index = client_index(options, options.index)
    with connect(options) as session:
        topology = session.api.topology()
        if require_index(index, topology).type == "mirror":
            raise Refused(f"{index} is a mirror and accepts no uploads", hint="name a stage with --index")
        if adopt_sources.is_address(options.source):
            public = session.identity.default_mirror_url or ""
            source = adopt_sources.of_url(options.source, public=public, upstreams=upstreams(topology))
        else:
            source = adopt_sources.of_directory(Path(options.source))
        with source as offers:
            found = adopt(session, index, offers, dry_run=options.dry_run, ui=ui)
    return _result(options, index, found)


def _result(options: Options, index: str, found: Adopted) -> Result:
    from deployer.errors import ConflictError, DeployerError, VerificationError

    invalid = [f"{origin}: {reason}" for origin, reason in sorted(found.invalid.items())]
    error: DeployerError | None = None
    if found.conflicts:
        error = ConflictError(
            f"nothing was uploaded: {found.conflicts[0]}",
            hint="remove one of the two files: deployer package remove, or take it out of the source",
            details=tuple(f"also: {line}" for line in found.conflicts[1:]),
        )
    elif invalid:
        error = VerificationError(
            f"left out: {invalid[0]}",
            hint="build it again, or leave it out",
            details=tuple(f"also: {line}" for line in invalid[1:]),
        )
    would = options.dry_run or bool(found.conflicts)
    lines = (
        f"{'to upload' if would else 'uploaded'}: {len(found.uploaded)}",
        f"on {index} already: {len(found.same)}",
        f"conflicts: {len(found.conflicts)}",
        f"left out: {len(invalid)}",
    )
    return Result(
        data={
            "index": index,
            "source": options.source,
            "dry_run": options.dry_run,
            "uploaded": [] if would else list(found.uploaded),
            "new": list(found.uploaded) if would else [],
            "bytes": found.bytes,
            "same": list(found.same),
            "conflicts": list(found.conflicts),
            "invalid": invalid,
        },
        text="\n".join(lines),
        error=error,
    )
