"""``deployer backup list``: the backups of a directory."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Common
from deployer.commands.backup import Placed, table
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Placed, Common):
    pass


def run(options: Options, ui: UI) -> Result:
    """List the backups, oldest first."""
    from deployer.operations import backup

    where = backup.place(options.profile, options.name, options.directory)
    found = backup.listed(where)
    if not found:
        ui.step("backup", f"{where.directory}: no backup yet")
    return Result(
        data={"directory": str(where.directory), "backups": [one.summary for one in found]},
        text=table(found) if found else "",
    )
