"""``deployer up``: bring the deployment to the state of its profile, and configure clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    no_pip: Annotated[bool, Option("--no-pip", help="Write no client file.")] = False
    keep: Annotated[bool, Option("--keep", help="Do not roll back a failure.")] = False
    replace: Annotated[bool, Option("--replace", help="Replace a deployment of another profile.")] = False
    new_data: Annotated[
        bool, Option("--new-data", help="Start with empty or other data if the recorded data is gone.")
    ] = False
    prune: Annotated[
        bool, Option("--prune", help="Remove users and empty indexes that are not in the profile; needs --yes.")
    ] = False
    no_warm: Annotated[bool, Option("--no-warm", help="Fetch nothing for the profile's `warm` files.")] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Confirm --prune and --replace.")] = False


def run(options: Options, ui: UI) -> Result:
    """Start the server, create its indexes and configure pip.

    It returns when the server is ready. Without a changed profile or option, a second run changes nothing; otherwise it
    shows the differences and applies them. A failure rolls back to the previous state.
    """
    from deployer.deployment.record import read_applied
    from deployer.errors import Refused
    from deployer.operations.up import up

    if options.prune and not options.yes:
        raise Refused("--prune removes users and indexes that are not in the profile", hint="confirm with --yes")
    before = read_applied(options.name)
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
    warmed = None
    if plan.warm and not options.no_warm:
        from deployer.operations.warm.command import keep_warm

        warmed = keep_warm(options.name, ui)
    elif before is not None and before.profile.get("warm") and not plan.warm:
        from deployer.operations.warm.command import unpin

        unpin(options.name, ui)
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
            "warmed": warmed
            and {"cached": len(warmed.cached), "fetched": len(warmed.fetched), "missing": len(warmed.missing)},
        },
        text=plan.simple_url,
    )
