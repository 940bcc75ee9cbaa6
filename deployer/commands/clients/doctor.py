"""``deployer clients doctor``: which clients would not install from the index."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.commands import Comparing, client_settings
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Comparing):
    pass


def run(options: Options, ui: UI) -> Result:
    """Find clients that would bypass the index; show a cure.

    Exit code 9 if there is one. Only files and variables are read, no client is run.
    """
    from deployer.clients.client import Account
    from deployer.errors import VerificationError
    from deployer.operations.clients import checks

    found = list(checks(Account.of(os.environ), client_settings(options).index_url))
    failed = [check.name for check in found if check.level == "failure"]
    lines = []
    for check in found:
        lines.append(f"{check.level.ljust(9)}{check.name.ljust(10)}{check.evidence}")
        if check.cure:
            lines.append(f"{'':19}-> {ui.address(check.cure)}")
    return Result(
        data={
            "checks": [
                {"name": c.name, "level": c.level, "evidence": c.evidence, "cure": ui.address(c.cure)} for c in found
            ]
        },
        text="\n".join(lines),
        error=VerificationError(f"not from the index alone: {', '.join(failed)}", hint="deployer clients apply")
        if failed
        else None,
    )
