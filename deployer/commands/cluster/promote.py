"""``deployer cluster promote``: another primary, by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    member: Annotated[int, Argument(metavar="MEMBER", min=0, help="Number of the next primary.")]
    even_if_behind: Annotated[
        bool, Option("--even-if-behind", help="Accept that commits and uploads are lost, which the member lacks.")
    ] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before a primary that runs is stopped.")] = False


def run(options: Options, ui: UI) -> Result:
    """Stop the primary, and make another member the primary.

    The former one follows from then on, on new data; where something may be lost, it is stopped and keeps its data.
    """
    from deployer.operations.cluster.change import promoted

    done = promoted(
        options.profile,
        options.name,
        options.member,
        losing=options.even_if_behind,
        yes=options.yes,
        lock_wait=options.wait,
        ui=ui,
    )
    return Result(
        data={
            "primary": done.primary,
            "former": done.former,
            "renewed": done.renewed,
            "commits_lost": done.lost.get("commits_lost"),
            "uploads_missing": done.lost.get("uploads_missing"),
            "members": [one.data for one in done.members],
        },
        warnings=()
        if done.renewed
        else (
            f"member {done.former} is stopped, and may have what member {done.primary} lacks; once it is not needed: "
            f"deployer cluster renew {done.former}",
        ),
    )
