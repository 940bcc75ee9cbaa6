"""``deployer offline status``: show whether the server asks upstreams."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show whether the server is offline."""
    from deployer.operations.offline import shown

    return shown(options.name, options.engine)
