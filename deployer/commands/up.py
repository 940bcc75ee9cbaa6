"""``deployer up``: from nothing, or from whatever is there, to an index that answers and clients that use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    no_pip: Annotated[bool, Option("--no-pip", help="Leave every client file alone.")] = False
    keep: Annotated[bool, Option("--keep", help="After a failure, keep what was made, for a look.")] = False
    replace: Annotated[bool, Option("--replace", help="Switch a deployment that runs under another profile.")] = False
    new_data: Annotated[
        bool, Option("--new-data", help="Go on with empty or other data where this deployment's own is gone.")
    ] = False
    prune: Annotated[
        bool, Option("--prune", help="Remove users and empty indexes that the profile does not name; needs --yes.")
    ] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Never ask.")] = False


def run(options: Options, ui: UI) -> Result:
    """Start the server, make its indexes, and point pip at it.

    It returns when the server truly answers. Running it again changes nothing; a changed profile is shown as a
    difference and applied; a failure leaves what was there before.
    """
    from deployer.errors import Refused
    from deployer.operations.up import up

    if options.prune and not options.yes:
        raise Refused("--prune would remove what the profile does not name", hint="insist with --yes")
    outcome = up(
        options.profile,
        options.name,
        overrides=overrides(options),
        ui=ui,
        replace=options.replace or options.yes,
        new_data=options.new_data,
        prune=options.prune,
        keep=options.keep,
        clients=not options.no_pip,
        lock_wait=options.wait,
    )
    plan, changes = outcome.plan, outcome.client_changes
    return Result(
        data={
            "url": plan.url,
            "simple_url": plan.simple_url,
            "engine": plan.engine.name,
            "network": plan.network.mode,
            "server": outcome.done,
            "changes": [
                *([] if outcome.done == "unchanged" else [f"server {outcome.done}"]),
                *(change.text for change in outcome.changes if change.due),
                *(f"{change.path} written" for change in changes if change.changed),
            ],
            "timings": {stage: round(seconds, 3) for stage, seconds in outcome.timings.items()},
            "client_files": [str(change.path) for change in changes],
        },
        text=plan.simple_url,
    )
