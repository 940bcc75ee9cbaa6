"""``deployer backup prune``: remove backups by rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Located
from deployer.commands.backup import Placed
from deployer.ui.output import UI, Result

RULES = ("last", "daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, kw_only=True)
class Options(Placed, Located):
    keep_last: Annotated[int | None, Option("--keep-last", metavar="N", min=0, help="The last N.")] = None
    keep_daily: Annotated[int | None, Option("--keep-daily", metavar="N", min=0, help="One a day, N days.")] = None
    keep_weekly: Annotated[int | None, Option("--keep-weekly", metavar="N", min=0, help="One a week, N weeks.")] = None
    keep_monthly: Annotated[int | None, Option("--keep-monthly", metavar="N", min=0, help="One a month, N months.")] = (
        None
    )
    keep_yearly: Annotated[int | None, Option("--keep-yearly", metavar="N", min=0, help="One a year, N years.")] = None


def run(options: Options, ui: UI) -> Result:
    """Remove backups that no rule keeps.

    Files that only they need go, too. Without rules on the command line, those of backup.keep apply. The last backup
    always stays.
    """
    from deployer.diagnosis import size
    from deployer.operations import backup

    where = backup.place(options.profile, options.name, options.directory)
    given = {rule: getattr(options, f"keep_{rule}") for rule in RULES}
    own = any(number is not None for number in given.values())
    keep = {rule: number or 0 for rule, number in given.items()} if own else where.settings.keep.model_dump()
    said = backup.prune(options.profile, options.name, where=where, engine=options.engine, keep=keep, ui=ui)
    ui.step("prune", f"{len(said['removed'])} removed, {len(said['kept'])} kept, {size(said['freed_bytes'])} freed")
    said.pop("version", None)
    return Result(data={"directory": str(where.directory), **said})
