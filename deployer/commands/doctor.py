"""``deployer doctor``: check this host and the server, and show a fix for each problem."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.diagnosis import Check

START_SECONDS = 60
_SHOWN = ("name", "level", "evidence", "cure")
MARKS = {"ok": "ok", "warning": "warning", "failure": "FAILURE"}
INDENT = 20


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    fix: Annotated[bool, Option("--fix", help="Apply the fixes that lose no data, and report each.")] = False


def run(options: Options, ui: UI) -> Result:
    """Check this host and the server; suggest fixes.

    The checks cover engine, image, data, network, upstream, pip and the server. Exit code 0 means that the server can
    start here and that pip can install through it.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import VerificationError
    from deployer.operations.diagnose import Target, checks, fixed
    from deployer.operations.diagnosis_facts import state_facts

    target = Target(
        profile=options.profile,
        name=options.name,
        engine=options.engine,
        overrides=overrides(options),
        timeout=options.timeout or START_SECONDS,
    )
    found: list[Check] = []
    state = state_facts(options.name)  # read before the lock, which changes the directory's mode
    with ExitStack() as held:
        if options.fix:
            held.enter_context(hold(options.name, wait=options.wait))
        for check in checks(target, state):
            found.append(fixed(check, target) if options.fix and check.fix else check)
            if not ui.silent:
                ui.line(ui.address(_line(found[-1])))
    failed = [check.name for check in found if check.level == "failure"]
    return Result(
        data={"checks": [{key: ui.address(getattr(check, key)) for key in _SHOWN} for check in found]},
        error=VerificationError(f"failed checks: {', '.join(failed)}", hint="apply the fix below each failed check")
        if failed
        else None,
    )


def _line(check: Check) -> str:
    from deployer.secrets import mask

    cure = f"\n{'':{INDENT}}-> {check.cure}" if check.cure and check.level != "ok" else ""
    return mask(f"{MARKS[check.level].ljust(8)}  {check.name.ljust(10)}{check.evidence}{cure}")
