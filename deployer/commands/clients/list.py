"""``deployer clients list``: the index of each client."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from deployer.commands import Comparing, client_settings
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Comparing):
    pass


def run(options: Options, ui: UI) -> Result:
    """List the clients here, and the index, file and key of each.

    Only files and variables are read, no client is run.
    """
    from deployer.clients.client import Account
    from deployer.errors import ConflictError
    from deployer.operations.clients import listed, table
    from deployer.secrets import mask_url

    try:
        ours = client_settings(options).index_url
    except ConflictError:
        ours = ""  # no deployment: what clients use can be listed all the same
    uses = listed(Account.of(os.environ), ours)
    rows = [{**asdict(use), "index": mask_url(use.index)} for use in uses]
    return Result(data={"clients": rows}, text=table(uses))
