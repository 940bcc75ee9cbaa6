"""``deployer configure-pip``: point pip at the index, or undo that."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Comparing, TrustedCa
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.clients.configure import ClientChange


@dataclass(frozen=True, kw_only=True)
class Options(Comparing):
    scope: Annotated[str, Option("--scope", metavar="SCOPE", help="user, global, site or venv.")] = ""
    timeout: Annotated[int | None, Option("--timeout", metavar="SECONDS", min=1, help="Timeout of pip.")] = None
    ca: TrustedCa = ""
    undo: Annotated[bool, Option("--undo", help="Restore the previous settings exactly.")] = False
    print: Annotated[bool, Option("--print", help="Print the new file without writing it.")] = False


def run(options: Options, ui: UI) -> Result:
    """Point pip at the index; keep its other settings.

    It writes index-url and timeout; `--undo` restores the previous settings exactly.
    """
    from deployer.clients.client import Account
    from deployer.clients.configure import configure, preview, undo
    from deployer.clients.pip import read_config
    from deployer.clients.registry import CLIENT_FILES
    from deployer.errors import ClientFileError, UsageError
    from deployer.operations.client_files import scope_of, settings_for

    pip, account = CLIENT_FILES["pip"], Account.of(os.environ)
    scope = options.scope or scope_of(options.name)
    if scope not in pip.scopes:
        raise UsageError(f"--scope is one of {', '.join(pip.scopes)}")
    if options.undo:
        change = undo(pip, scope=scope, account=account)
        ui.step("pip", f"{change.path}: {'restored' if change.changed else 'nothing to undo'}")
        return Result(data=_data(change), warnings=change.warnings)
    settings = settings_for(options.name, index=options.index, url=options.url, timeout=options.timeout, ca=options.ca)
    if options.print:
        change = preview(pip, settings, scope=scope, account=account)
        return Result(data=_data(change), text=change.text, warnings=change.warnings)
    proposed = preview(pip, settings, scope=scope, account=account)
    if why := read_config(account).ignored.get(proposed.path):
        raise ClientFileError(
            f"pip does not read {proposed.path}: {why}; nothing was written",
            hint="unset PIP_CONFIG_FILE, or for one command: deployer exec -- pip install NAME",
        )
    change = configure(pip, settings, scope=scope, account=account)
    ui.step("pip", f"{change.path}: {', '.join(change.keys) + ' written' if change.changed else 'unchanged'}")
    value, source = pip.read(account).effective(pip.index_key)
    ui.note(f"{pip.index_key} is now {value} ({source})" if value else f"pip reads no {pip.index_key}")
    return Result(data=_data(change), warnings=(*change.masks, *change.warnings))


def _data(change: ClientChange) -> dict[str, object]:
    return {"path": str(change.path), "changed": change.changed, "masks": list(change.masks)}
