"""``deployer mirror list``: the indexes that mirror an upstream."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    pass


def run(options: Options, ui: UI) -> Result:
    """List the mirrors of the server, each with its upstream."""
    from deployer.operations.indexes import listed, table

    with connect(options) as session:
        rows = listed(session, only="mirror")
    return Result(data={"indexes": rows}, text=table(rows))
