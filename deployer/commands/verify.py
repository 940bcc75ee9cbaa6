"""``deployer verify``: pip and uv download through the index, and the server says where the files came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Located, OtherIndex
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.verify import Row

PACKAGE = "flask==3.1.0"
"""What is downloaded unless something is named: seven small wheels."""


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    packages: Annotated[
        list[str] | None,
        Argument(metavar="PACKAGE", help=f"Packages to download, with all that they need; default: {PACKAGE}."),
    ] = None
    requirements: Annotated[
        str, Option("--requirements", "-r", metavar="FILE", help="Download what this file requires.")
    ] = ""
    index: OtherIndex = ""
    cut: Annotated[
        bool,
        Option("--cut/--no-cut", help="For the last download, switch the server offline; --no-cut leaves it out."),
    ] = True


def run(options: Options, ui: UI) -> Result:
    """Download with pip and uv through the index; show sources.

    Each runs three times, without a cache of its own: the first time, again, and while the server is offline. It runs
    with its user's files and variables; a client whose files don't name the index gets it as with `deployer exec`.
    Exit code 9 means that a file did not come through the index, or that a download failed. Nothing is installed, and
    nothing is left behind.
    """
    from pathlib import Path

    from deployer.deployment.find import require
    from deployer.errors import NotReadyError, UsageError
    from deployer.operations.client_files import settings_for
    from deployer.operations.verify import verification
    from deployer.spec import State

    named = options.packages or []
    if bad := next((one for one in named if one.startswith("-") or not one.strip()), None):
        raise UsageError(f"{bad!r} is no package", hint="deployer verify NAME==VERSION")
    if options.requirements and not Path(options.requirements).is_file():
        raise UsageError(f"{options.requirements} is not a file", hint="deployer verify -r requirements.txt")
    words = ["-r", str(Path(options.requirements).resolve())] if options.requirements else []
    wanted = [*words, *(named or ([] if words else [PACKAGE]))]
    deployment = require(options.name, engine=options.engine)
    if deployment.container.state is not State.RUNNING:
        raise NotReadyError(f"{options.name} is not running ({deployment.container.state})", hint="deployer up")
    settings = settings_for(options.name, index=options.index)
    done = verification(deployment, settings, wanted, cut=options.cut, ui=ui).run()
    data = {
        "index": settings.index_url,
        "wanted": wanted,
        "runs": [row.json for row in done.rows],
        "notes": list(done.notes),
    }
    return Result(data=data, text="\n\n".join(_text(done.rows, done.notes)), error=done.error)


def _text(rows: tuple[Row, ...], notes: tuple[str, ...]) -> list[str]:
    from deployer.diagnosis import size
    from deployer.operations.verify import Origin
    from deployer.ui.table import table

    head = (
        *("client", "download", "seconds", "start", "goal", "files", "bytes"),
        *("from upstream", "from here", "past the index", "upstream requests"),
    )
    cells = [
        (
            row.client,
            row.run,
            *(f"{row.seconds:.2f}", f"{row.start:.2f}", f"{row.goal:.1f}", f"{len(row.files)}"),
            size(sum(file.bytes for file in row.files)),
            *(f"{row.count(origin)}" for origin in (Origin.UPSTREAM, Origin.HERE, Origin.PAST)),
            f"{row.asked}",
        )
        for row in sorted(rows, key=lambda row: row.client)
    ]
    return [table(head, cells), *(["\n".join(notes)] if notes else [])]
