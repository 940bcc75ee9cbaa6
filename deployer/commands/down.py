"""``deployer down``: stop and remove the server; ``--purge`` deletes the data, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    purge: Annotated[bool, Option("--purge", help="Delete all cached and uploaded files, too.")] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


def run(options: Options, ui: UI) -> Result:
    """Stop and remove the server; --purge deletes its data."""
    from deployer.deployment.find import find
    from deployer.deployment.lock import hold
    from deployer.deployment.passwords import Passwords
    from deployer.deployment.record import forget, forget_data
    from deployer.operations import environment, upstream_probe
    from deployer.operations.admit import admit
    from deployer.operations.purge import (
        dangling_client,
        data_of,
        is_there,
        left_service,
        purge,
        remove,
        throw_away,
    )
    from deployer.ui.prompts import consent

    with hold(options.name, wait=options.wait):
        deployment = find(options.name, engine=options.engine)
        data = data_of(options.name, deployment)
        temporary = throw_away(options.name, data)
        doomed = admit(options.name, data, deployment) if data and (options.purge or temporary) else None
        if doomed is not None and not temporary:
            consent(f"{doomed.mount.source} and everything uploaded to it", yes=options.yes)
        removed = remove(deployment, ui) if deployment else []
        if doomed is not None:
            forget_data(options.name)
        purged = purge(doomed, ui) if doomed is not None else False
        kept = data.source if data is not None and not purged and is_there(data, deployment) else ""
        if kept and removed:
            ui.step("data", f"{kept} (kept; delete it with --purge)")
        if options.purge:
            forget(options.name)
            upstream_probe.forget(options.name)
            environment.forget(options.name)
            Passwords(name=options.name).forget_all()
    if not removed and not purged:
        ui.step("server", f"{options.name}: nothing to do")
    return Result(
        data={"removed": removed, "data_kept": kept, "purged": purged},
        warnings=(*dangling_client(deployment), *left_service(options.name)) if removed else (),
    )
