"""``deployer plan``: what ``up`` would do, without any change."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployer.commands import Overrides, overrides
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.prepare import Prepared


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show what `up` would do, without changing anything.

    It shows every step with the exact command.
    Exit code 10 means that `up` would change something, 0 that it would not.
    """
    from deployer.errors import DriftError
    from deployer.operations.plan import argv, decided, steps
    from deployer.operations.prepare import prepare
    from deployer.operations.recorded import dropped_warning

    prepared = decided(prepare(options.profile, options.name, overrides=overrides(options)))
    due = steps(prepared)
    changing = [name for name, (_, changes) in due.items() if changes]
    text = "\n".join(f"{name.ljust(10)}{line}" for name, (lines, _) in due.items() for line in lines)
    return Result(
        data={
            "engine": prepared.plan.engine.name,
            "argv": list(argv(prepared)),
            "spec_sha256": prepared.plan.spec.sha256(),
            "url": prepared.plan.url,
            "simple_url": prepared.plan.simple_url,
            "steps": {name: lines for name, (lines, _) in due.items()},
            "changes": changing,
        },
        text=text,
        warnings=(*prepared.plan.warnings, *dropped_warning(options.profile, options.name, prepared.loaded)),
        error=DriftError(f"up would change: {', '.join(changing)}", hint=_up(options, prepared)) if changing else None,
    )


def _up(options: Options, prepared: Prepared) -> str:
    """Return the `up` command of this plan."""
    from deployer.operations.recorded import spelt
    from deployer.spec import LABEL_PROFILE

    words = ["deployer", "up", *spelt(options.profile, prepared.loaded.overrides, name=options.name)]
    current, profile = prepared.current, prepared.plan.profile_name
    if current is not None and current.labels.get(LABEL_PROFILE, profile) != profile:
        words.append("--replace")
    return shlex.join(words)
