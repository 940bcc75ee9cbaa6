"""``deployer down``: stop and remove the server; ``--purge`` deletes the data, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    purge: Annotated[bool, Option("--purge", help="Delete all cached and uploaded files, too.")] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


def run(options: Options, ui: UI) -> Result:
    """Stop and remove the server; --purge deletes its data."""
    from deployer.deployment.lock import hold
    from deployer.operations.down import down

    with hold(options.name, wait=options.wait):
        done = down(options.name, engine=options.engine, purging=options.purge, yes=options.yes, ui=ui)
    return Result(
        data={"removed": list(done.removed), "data_kept": done.kept, "purged": done.purged},
        warnings=tuple(done.warnings),
    )
