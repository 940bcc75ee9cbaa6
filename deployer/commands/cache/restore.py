"""``deployer cache restore``: give the server the files that ``cache save`` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    directory: Annotated[Path, Argument(metavar="DIR", help="Directory that `cache save` has written.")]
    pages: Annotated[
        bool,
        Option(
            "--pages", help="Fetch the pages of these projects, too, all at once; pip asks for one after the other."
        ),
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Give the server the files that `cache save` wrote.

    Every file is verified. A directory that is absent, empty, damaged or from a newer deployer restores nothing, with a
    warning: a job runs without its cache, only slower.
    """
    from deployer.deployment.session import connect
    from deployer.diagnosis import size
    from deployer.operations.recorded import client_index
    from deployer.operations.saved_cache import restore

    pages_of = client_index(options.name) if options.pages else ""
    with connect(options.name, engine=options.engine) as session:
        done = restore(session, options.directory, ui, pages_of=pages_of)
    return Result(
        data={
            "directory": str(options.directory),
            "restored": len(done.restored),
            "bytes": done.bytes,
            "same": done.same,
            "skipped": list(done.skipped),
        },
        text=f"{options.directory}: {len(done.restored)} files restored, {size(done.bytes)}",
        warnings=done.warnings,
    )
