"""``deployer mirror modify``: change the given fields of a mirror."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the mirror.")]
    settings: Annotated[list[str], Argument(metavar="KEY=VALUE...", help="Fields: url=https://...")]


def run(options: Options, ui: UI) -> Result:
    """Change the given fields of a mirror; keep its files.

    With another `url`, pages of the former upstream are no longer used.
    """
    from deployer.deployment.lock import hold
    from deployer.devpi.change import UPSTREAM
    from deployer.operations.indexes import modify

    with hold(options.name, wait=options.wait), connect(options) as session:
        changed = modify(session, options.index, options.settings, kind="mirror")
    ui.step("index", f"{options.index}: {', '.join(changed) or 'unchanged'}")
    if UPSTREAM in changed:
        ui.note("pages of the former upstream are no longer used")
    return Result(data={"index": options.index, "changed": sorted(changed)})
