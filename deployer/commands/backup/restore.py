"""``deployer backup restore``: restore a backup, here or on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.commands.backup import Chosen
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Chosen, Exclusive, Overrides):
    replace: Annotated[
        bool, Option("--replace", help="Set present data aside, stop the server, and restore in its place.")
    ] = False
    no_pip: Annotated[bool, Option("--no-pip", help="Write no client file.")] = False


def run(options: Options, ui: UI) -> Result:
    """Restore a backup, here or on another machine.

    Every file is verified while it is written to a new directory or volume; then the server starts on it. Data that is
    in the place is never deleted: without --replace nothing happens, with it the data gets another name beside.
    """
    from deployer.deployment.lock import hold
    from deployer.operations import backup
    from deployer.operations.restore import restore

    where = backup.place(options.profile, options.name, options.directory)
    with hold(options.name, wait=options.wait):
        done = restore(
            options.profile,
            options.name,
            overrides=overrides(options),
            where=where,
            wanted=options.backup,
            replace_data=options.replace,
            identity=Path(options.identity) if options.identity else None,
            clients=not options.no_pip,
            ui=ui,
        )
    return Result(
        data={
            "directory": str(where.directory),
            **done.backup.summary,
            "data": done.source,
            "kept": done.kept,
            "url": done.outcome.plan.url,
        }
    )
