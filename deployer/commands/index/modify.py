"""``deployer index modify``: change the given fields of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the index.")]
    settings: Annotated[list[str], Argument(metavar="KEY=VALUE...", help="Fields: volatile=true.")]


def run(options: Options, ui: UI) -> Result:
    """Change the given fields of an index."""
    from deployer.deployment.lock import hold
    from deployer.operations.indexes import modify

    with hold(options.name, wait=options.wait), connect(options) as session:
        changed = modify(session, options.index, options.settings)
    ui.step("index", f"{options.index}: {', '.join(changed) or 'unchanged'}")
    return Result(data={"index": options.index, "changed": sorted(changed)})
