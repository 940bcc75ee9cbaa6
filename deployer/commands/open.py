"""``deployer open``: open the index in the browser, logged in as root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    print: Annotated[bool, Option("--print", help="Print the address instead of opening it.")] = False
    anonymous: Annotated[bool, Option("--anonymous", help="Without a login.")] = False


def run(options: Options, ui: UI) -> Result:
    """Open the index in the browser, logged in as root.

    The address logs in once, within a minute. It takes the right to read the server directory.
    """
    from deployer.operations.browser import address, show

    where = address(options.name, options.engine, login=not options.anonymous)
    opened = not options.print and not options.json and show(where)
    if not opened and not options.print:
        ui.note("no browser could be started here: open this address yourself")
    return Result(data={"address": where, "opened": opened}, text="" if opened else where)
