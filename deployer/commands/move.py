"""``deployer move``: the same deployment on another data directory or volume, with everything that is in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    delete_old: Annotated[
        bool, Option("--delete-old", help="Delete the data in its old place once the server runs on the new one.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Move the data to another place, and go on there.

    Name the place with --data. The server is stopped, every file is copied and compared by checksum, and the server
    starts on the copy; if anything fails, it runs again where it was. The old data stays unless told.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import UsageError
    from deployer.operations.move import move

    if not options.data:
        raise UsageError("no new place is named: --data WHERE")
    with hold(options.name, wait=options.wait):
        moved = move(
            options.profile,
            options.name,
            overrides=overrides(options),
            engine=options.engine,
            delete_old=options.delete_old,
            ui=ui,
        )
    ui.note(f"put `data: {options.data}` into the profile: from now on it is where the data is")
    return Result(
        data={
            "from": moved.source.source,
            "to": moved.target.source,
            **asdict(moved.copied),
            "url": moved.outcome.plan.url,
        }
    )
