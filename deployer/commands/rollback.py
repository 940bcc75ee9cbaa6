"""``deployer rollback``: go back to the server and the data before the last upgrade."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    keep_in: Annotated[str, Option("--keep-in", metavar="DIR", help="Directory for the uploads since the upgrade.")] = (
        ""
    )


def run(options: Options, ui: UI) -> Result:
    """Go back to the server and data before the last upgrade.

    Uploads since the upgrade are not in that data. They are kept as files, and the command that uploads them again is
    printed. Other changes since the upgrade are lost.
    """
    from deployer.deployment.lock import hold
    from deployer.operations.upgrade.backward import former_python, rollback
    from deployer.operations.upgrade.common import run_again

    python = former_python(options.name, options.engine)
    if python:
        run_again(python)
    with hold(options.name, wait=options.wait):
        keep_in = Path(options.keep_in).expanduser().absolute() if options.keep_in else None
        done = rollback(options.name, engine=options.engine, keep_in=keep_in, ui=ui)
    return Result(data=asdict(done))
