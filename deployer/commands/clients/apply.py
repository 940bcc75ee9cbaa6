"""``deployer clients apply``: point clients at the index."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.commands import Pointing, client_settings
from deployer.ui.output import UI, Result

LOCKING = ("uv", "poetry", "pip")
"""Clients that write the index into lock files, and pip for pip-compile."""


@dataclass(frozen=True, kw_only=True)
class Options(Pointing):
    pass


def run(options: Options, ui: UI) -> Result:
    """Point clients at the index; keep their other settings.

    All files are written, or none. `deployer clients undo` restores them exactly.
    """
    from deployer.clients.client import Account
    from deployer.operations.clients import apply, row, targets

    account, wanted = Account.of(os.environ), client_settings(options, options.timeout, ca=options.ca)
    chosen, left = targets(options.clients or (), options.scope, account)
    made = apply(chosen, wanted, account)
    for name, change in made.items():
        ui.step(name, f"{change.path}: {', '.join(change.keys) + ' written' if change.changed else 'unchanged'}")
    if any(change.changed for name, change in made.items() if name in LOCKING):
        ui.note("lock files that are made from now on name this index: deployer locks check")
    warnings = [line for change in made.values() for line in (*change.masks, *change.warnings)]
    return Result(
        data={"files": [row(name, change) for name, change in made.items()]},
        warnings=tuple(dict.fromkeys((*left, *warnings))),
    )
