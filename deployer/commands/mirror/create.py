"""``deployer mirror create``: create a mirror of an upstream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the new mirror.")]
    upstream: Annotated[str, Argument(metavar="URL", help="Simple URL of the upstream.")]
    settings: Annotated[list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Fields: cache_expiry=600.")] = None


def run(options: Options, ui: UI) -> Result:
    """Create a mirror of an upstream.

    The server does not load the project list of the upstream; `project_list=true` changes that.
    """
    from deployer.deployment.lock import hold
    from deployer.operations.indexes import create, declare

    node = declare(options.index, (f"url={options.upstream}", *(options.settings or ())), kind="mirror")
    with hold(options.name, wait=options.wait), connect(options) as session:
        create(session, options.index, node)
    ui.step("index", f"{options.index} created (mirror)")
    return Result(data={"index": options.index, "type": "mirror"})
