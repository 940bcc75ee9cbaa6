"""``deployer doctor``: would the main job work here, and if not, what to do about it."""

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
    fix: Annotated[
        bool, Option("--fix", help="Do the cures that can't lose anything, and say each; nothing else is changed.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Check this host and the server, and name each cure.

    Engine, image, data, network, upstream, pip and the server itself. Exit code 0 only if the main job works here: to
    start the server, and to install through it.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import VerificationError
    from deployer.operations.diagnose import Asked, checks, fixed
    from deployer.operations.diagnosis_facts import state_facts

    asked = Asked(
        profile=options.profile,
        name=options.name,
        engine=options.engine,
        overrides=overrides(options),
        timeout=options.timeout or START_SECONDS,
    )
    found: list[Check] = []
    state = state_facts(options.name)  # taking the lock would change its mode
    with ExitStack() as held:
        if options.fix:
            held.enter_context(hold(options.name, wait=options.wait))
        for check in checks(asked, state):
            found.append(fixed(check, asked) if options.fix and check.fix else check)
            if not ui.silent:
                ui.line(ui.address(_line(found[-1])))
    failed = [check.name for check in found if check.level == "failure"]
    return Result(
        data={"checks": [{key: ui.address(getattr(check, key)) for key in _SHOWN} for check in found]},
        error=VerificationError(f"not in order: {', '.join(failed)}", hint="follow the cures above")
        if failed
        else None,
    )


def _line(check: Check) -> str:
    from deployer.secrets import mask

    cure = f"\n{'':{INDENT}}-> {check.cure}" if check.cure and check.level != "ok" else ""
    return mask(f"{MARKS[check.level].ljust(8)}  {check.name.ljust(10)}{check.evidence}{cure}")
