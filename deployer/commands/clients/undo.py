"""``deployer clients undo``: restore client files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import ChosenClients
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(ChosenClients):
    scope: Annotated[
        str, Option("--scope", metavar="SCOPE", help="user, project, environment or machine; by default all.")
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Restore the former settings of clients exactly.

    What other programs have changed since is kept. Files of a project are restored in its directory.
    """
    from deployer.clients.client import Account
    from deployer.operations.clients import restore, row

    account = Account.of(os.environ)
    done, elsewhere = restore(options.clients or (), options.scope, account)
    for name, change in done:
        ui.step(name, f"{change.path}: restored")
    if not done:
        ui.note("nothing to undo")
    left = [f"{path} is still as deployer wrote it: cd {path.parent} && deployer clients undo" for path in elsewhere]
    return Result(
        data={"files": [row(name, change) for name, change in done]},
        warnings=(*(line for _, change in done for line in change.warnings), *left),
    )
