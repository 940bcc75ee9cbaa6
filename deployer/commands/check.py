"""``deployer check``: check database and files, also while the server serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.errors import DeployerError

SHOWN = 20
"""Findings that are shown to people; ``--json`` has all."""


def _rate(value: str) -> str:
    from deployer.protocol import parse_size

    try:
        if value not in ("", "0"):
            parse_size(value)
    except ValueError:
        raise BadParameter(f"{value!r} is an invalid rate: use bytes a second such as 50m, or 0 for no limit") from None
    return value


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    repair: Annotated[bool, Option("--repair", help="Set aside what is wrong; mirrors fetch their files again.")] = (
        False
    )
    backups: Annotated[
        str, Option("--backups", metavar="DIR", help="Take lost uploads from the backups in this directory.")
    ] = ""
    rate: Annotated[
        str,
        Option("--rate", metavar="SIZE", callback=_rate, help="Read so much a second; 0: no limit; serving: 50m."),
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Check database, files and cached pages of the server.

    It may serve meanwhile. Every file is compared with its hash. --repair deletes nothing: damaged and unknown files
    are set aside, files of mirrors are fetched again, and lost uploads are taken from backups if there are any.
    """
    from deployer.diagnosis import size
    from deployer.errors import UsageError
    from deployer.operations.check import check
    from deployer.protocol import parse_size

    if options.backups and not options.repair:
        raise UsageError("--backups without --repair", hint="add --repair")
    backups = Path(options.backups).expanduser().absolute() if options.backups else None
    if backups is not None and not (backups / "blobs").is_dir():
        raise UsageError(f"{backups} is no directory of backups", hint="name the --directory of deployer backup")
    rate = None if not options.rate else 0 if options.rate == "0" else parse_size(options.rate)
    report = check(
        options.profile,
        options.name,
        engine=options.engine,
        repair=options.repair,
        rate=rate,
        backups=backups,
        ui=ui,
    )
    found, facts = report["findings"], report["database"]
    ui.step("database", f"{size(facts['bytes'])}, serial {facts['serial']}, no error")
    ui.step("files", f"{report['files']}, {size(report['bytes'])} read")
    for one in found[:SHOWN]:
        done = f" ({one['done']})" if one["done"] else ""
        ui.step(one["kind"], f"{one['path']}: {one['why']}{done}")
    if len(found) > SHOWN:
        ui.note(f"and {len(found) - SHOWN} more; --json has all")
    report.pop("version", None)
    return Result(data=report, error=_error([one for one in found if not one["done"]], repaired=options.repair))


def _error(left: Sequence[dict[str, Any]], *, repaired: bool) -> DeployerError | None:
    from deployer.errors import VerificationError

    if not left:
        return None
    counts = Counter(one["kind"] for one in left)
    lost = sum(1 for one in left if one["kind"] in ("damaged", "missing") and not one["mirror"])
    what = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    said = f"the data is not whole: {what}" + (f"; uploads among them: {lost}" if lost else "")
    cure = "deployer check --repair --backups DIR, or upload them again" if repaired else "deployer check --repair"
    return VerificationError(said, hint=cure)
