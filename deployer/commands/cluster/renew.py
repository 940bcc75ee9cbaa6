"""``deployer cluster renew``: a replica on new data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    member: Annotated[int, Argument(metavar="MEMBER", min=0, help="Number of a member that is not the primary.")]
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


def run(options: Options, ui: UI) -> Result:
    """Delete the data of a replica, and have it copy all again.

    For a replica that can't follow any more, and for a former primary whose uploads are not needed.
    """
    from deployer.operations.cluster.change import renew

    found = renew(options.profile, options.name, options.member, yes=options.yes, lock_wait=options.wait, ui=ui)
    return Result(data={"members": [found.data]})
