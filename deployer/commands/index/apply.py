"""``deployer index apply``: users and indexes of a running deployment, as its profile says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    prune: Annotated[
        bool, Option("--prune", help="Remove users and empty indexes that the profile does not name; needs --yes.")
    ] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before removing.")] = False


def run(options: Options, ui: UI) -> Result:
    """Make users and indexes as the profile says; restart nothing.

    Only what differs is changed, and only what the profile names. What the last `up` put over the profile holds.
    """
    from deployer.deployment.lock import hold
    from deployer.deployment.session import connect
    from deployer.devpi.converge import converge, steps
    from deployer.devpi.declared import wanted
    from deployer.errors import Refused
    from deployer.operations.prepare import prepare
    from deployer.operations.recorded import as_deployed
    from deployer.operations.up import say_changes

    if options.prune and not options.yes:
        raise Refused("--prune would remove what the profile does not name", hint="insist with --yes")
    with hold(options.name, wait=options.wait), connect(options.name) as session:
        profile, put_over = as_deployed(options.profile, options.name, overrides(options))
        plan = prepare(profile, options.name, overrides=put_over).plan
        default = plan.default_upstream or session.identity.default_mirror_url
        goal = wanted(plan.users, plan.indexes, default_mirror_url=default)
        found = steps(session.api, goal, removing=options.prune)
        done = converge(
            session.api,
            found,
            password=session.password,
            new_password=session.new_password,
            forget=session.forget,
        )
    say_changes(found, ui)
    kept = [change.text for change in found if change.kind == "kept"]
    return Result(data={"changes": [change.text for change in done], "kept": kept})
