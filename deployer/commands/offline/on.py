"""``deployer offline on``: turn offline mode on in the running server."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Turn offline mode on: ask no upstream, serve what is here.

    Cached and uploaded files are served; pages list no others. It takes effect at once and survives restarts.
    """
    from deployer.operations.offline import switched

    return switched(options.name, options.engine, offline=True, ui=ui)
