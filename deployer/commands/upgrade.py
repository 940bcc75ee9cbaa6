"""``deployer upgrade``: run a newer server, and convert the data where that needs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    to: Annotated[
        str, Option("--to", metavar="VERSION", help="Version of devpi-server; by default what this deployer brings.")
    ] = ""
    plan: Annotated[bool, Option("--plan", help="Show what would be done, and do nothing.")] = False


def run(options: Options, ui: UI) -> Result:
    """Run a newer server on the data, and keep a way back.

    From devpi-server 6 to 7 the data is converted beside the running server, which goes on serving and taking uploads.
    The new server is proved on a port of its own before it takes over. A failure leaves the former server running.
    `deployer rollback` goes back.
    """
    from deployer.deployment.lock import hold
    from deployer.operations.upgrade.forward import upgrade

    with hold(options.name, wait=options.wait):
        done = upgrade(
            options.profile, options.name, engine=options.engine, to=options.to, only_plan=options.plan, ui=ui
        )
    if done.kept and done.change.converts:
        ui.note(f'set `server.version: "{done.change.after[0]}"` in the profile')
    said = asdict(done)
    change = said.pop("change")
    return Result(data={**said, **change})
