"""``deployer cluster status``: each member of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show each member: role, serial, lag, files, version.

    Exit code 0 means that all members are in sync. `lag` is for how long a replica may lack something of the primary.
    """
    from deployer.errors import ConflictError

    raise ConflictError(f"{options.name} is no cluster", hint="set cluster.replicas in its profile, then: deployer up")
