"""``deployer move``: move a deployment to another data directory or volume."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    delete_old: Annotated[
        bool, Option("--delete-old", help="Delete the old data once the server runs on the copy.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Move the data to another directory or volume.

    --data names the target. The server stops, every file is copied and verified by checksum, and the server starts on
    the copy. A failure rolls back to the old data. The old data stays without --delete-old.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import UsageError
    from deployer.operations.move import move

    if not options.data:
        raise UsageError("no target for the data", hint="add --data WHERE")
    with hold(options.name, wait=options.wait):
        moved = move(
            options.profile,
            options.name,
            overrides=overrides(options),
            engine=options.engine,
            delete_old=options.delete_old,
            ui=ui,
        )
    ui.note(f"set `data: {options.data}` in the profile, so that it names the new location")
    return Result(
        data={
            "from": moved.source.source,
            "to": moved.target.source,
            **asdict(moved.copied),
            "url": moved.outcome.plan.url,
        }
    )
