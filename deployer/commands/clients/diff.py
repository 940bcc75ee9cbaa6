"""``deployer clients diff``: what ``apply`` would change."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.commands import Pointing, client_settings
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Pointing):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show what `clients apply` would change, and change nothing."""
    from deployer.clients.client import Account
    from deployer.operations.clients import difference, proposed, row, targets

    account, wanted = Account.of(os.environ), client_settings(options, options.timeout, ca=options.ca)
    chosen, left = targets(options.clients or (), options.scope, account)
    found = proposed(chosen, wanted, account)
    texts = {name: difference(change) for name, change in found.items()}
    warnings = [line for change in found.values() for line in (*change.masks, *change.warnings)]
    return Result(
        data={"files": [{**row(name, change), "diff": texts[name]} for name, change in found.items()]},
        text="\n".join(filter(None, texts.values())),
        warnings=tuple(dict.fromkeys((*left, *warnings))),
    )
