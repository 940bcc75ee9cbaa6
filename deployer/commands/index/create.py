"""``deployer index create``: create a stage, a mirror or an index of another type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the new index.")]
    settings: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Fields: bases=root/pypi volatile=false.")
    ] = None
    kind: Annotated[str, Option("--type", metavar="TYPE", help="stage, mirror, or another type of the server.")] = (
        "stage"
    )


def run(options: Options, ui: UI) -> Result:
    """Create an index from KEY=VALUE arguments.

    The keys are those of `indexes:` in a profile; commas separate the items of a list.
    """
    from deployer.deployment.lock import hold
    from deployer.operations.indexes import create, declare

    node = declare(options.index, options.settings or (), kind=options.kind)
    with hold(options.name, wait=options.wait), connect(options) as session:
        create(session, options.index, node)
    ui.step("index", f"{options.index} created ({options.kind})")
    return Result(data={"index": options.index, "type": options.kind})
