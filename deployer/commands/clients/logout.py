"""``deployer clients logout``: restore ``~/.netrc``."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.commands import Common
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    pass


def run(options: Options, ui: UI) -> Result:
    """Remove the logins of clients from ~/.netrc.

    The file is as it was before; what others have changed in it is kept. Tokens stay valid until they expire:
    `deployer token revoke` ends them.
    """
    from deployer.clients.client import Account
    from deployer.operations import logins

    change = logins.forget(Account.of(os.environ))
    ui.step("login", f"{change.path}: {'restored' if change.changed else 'nothing to undo'}")
    return Result(data={"path": str(change.path), "changed": change.changed}, warnings=change.warnings)
