"""``deployer offline off``: turn offline mode off in the running server."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Turn offline mode off: upstreams are asked again.

    It takes effect at once.
    """
    from deployer.operations.offline import switched

    return switched(options.name, options.engine, offline=False, ui=ui)
