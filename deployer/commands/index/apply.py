"""``deployer index apply``: bring the users and indexes of a running server to the state of the profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    prune: Annotated[
        bool, Option("--prune", help="Remove users and empty indexes that are not in the profile; needs --yes.")
    ] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Confirm --prune.")] = False


def run(options: Options, ui: UI) -> Result:
    """Apply the profile's users and indexes without a restart.

    It changes only fields that differ and that the profile declares. The overrides of the last `up` apply.
    """
    from deployer.deployment.lock import hold
    from deployer.deployment.session import connect
    from deployer.devpi.converge import converge, steps
    from deployer.devpi.declared import wanted
    from deployer.errors import Refused
    from deployer.operations.declared import tell
    from deployer.operations.prepare import prepare
    from deployer.operations.recorded import as_deployed
    from deployer.operations.up import show_changes

    if options.prune and not options.yes:
        raise Refused("--prune removes users and indexes that are not in the profile", hint="confirm with --yes")
    with hold(options.name, wait=options.wait), connect(options.name) as session:
        profile, all_overrides = as_deployed(options.profile, options.name, overrides(options))
        prepared = prepare(profile, options.name, overrides=all_overrides)
        plan = prepared.plan
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
        if plan.image is None or plan.image.own:
            tell(prepared.server_dir, session.api, goal, profile=plan.profile_name, changed=bool(done))
    show_changes(found, plan.indexes, ui)
    kept = [change.text for change in found if change.kind == "kept"]
    return Result(data={"changes": [change.text for change in done], "kept": kept})
