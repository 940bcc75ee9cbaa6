"""What ``deployer offline check`` does, for a deployment, and what it says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from deployer.deployment.record import read_applied
from deployer.deployment.session import connect
from deployer.errors import UsageError, VerificationError
from deployer.host import isolation
from deployer.operations.offline_check import Checked, Checking, Hole
from deployer.operations.recorded import client_index
from deployer.operations.warm.command import require_files, targets_of
from deployer.ui.output import UI, Result

SHOWN = 40
"""Holes that are printed; ``--json`` has all of them."""


def check(
    name: str,
    engine: str,
    *,
    sources: Sequence[Path],
    pythons: Sequence[str],
    platforms: Sequence[str],
    index: str,
    ui: UI,
) -> Result:
    """Check ``sources`` with the deployment ``name``.

    Raises UsageError for options, ConflictError where no network namespace can be made.
    """
    wanted = targets_of(read_applied(name), pythons, platforms)
    if not sources:
        raise UsageError("nothing to check is named", hint="deployer offline check -r requirements.txt")
    require_files(sources)
    isolation.require()
    with connect(name, engine=engine) as session:
        url = session.api.url
    index = index or client_index(name)
    with ui.working("check", f"{index}, with no way to an upstream") as tell:
        found = Checking(server=url, index=index, targets=wanted, tell=tell).run(sources)
    holes = sorted({hole for one in found for hole in one.holes})
    cure = shlex.join(_warm(sources, pythons, platforms, holes))
    return Result(
        data={
            "index": index,
            "checked": [
                {
                    "source": one.source,
                    "python": one.target.python,
                    "platform": one.target.platform,
                    "files": one.files,
                    "installed_by": list(one.installed_by),
                    "ok": not one.holes,
                }
                for one in found
            ],
            "holes": [vars(hole) for hole in holes],
            "warm": cure if holes else "",
        },
        text="\n".join(_line(one) for one in found),
        error=_error(holes, cure),
    )


def _line(one: Checked) -> str:
    how = f"installed by {' and '.join(one.installed_by)}" if one.installed_by else "resolved and read, not installed"
    state = f"MISSING {len(one.holes)}" if one.holes else f"ok, {how}"
    return f"{one.source} for {one.target.text}: {state}; {one.files} files"


def _warm(
    sources: Sequence[Path], pythons: Sequence[str], platforms: Sequence[str], holes: Sequence[Hole]
) -> list[str]:
    """The command that fills the holes."""
    lacking = {hole.source for hole in holes}
    words = ["deployer", "warm"]
    words += [word for path in sources if str(path) in lacking for word in ("-r", str(path))]
    words += [word for python in pythons for word in ("--python", python)]
    return [*words, *(word for platform in platforms for word in ("--platform", platform)), "--build-deps"]


def lines_of(holes: Sequence[Hole]) -> tuple[str, ...]:
    """What is missing, each thing once, with those who met it."""
    found: dict[tuple[str, str], list[str]] = {}
    for hole in holes:
        known = found.setdefault((hole.what, hole.why), [])
        known += [hole.by] if hole.by and hole.by not in known else []
    return tuple(f"{what}: {why}" + (f" ({' and '.join(by)})" if by else "") for (what, why), by in found.items())


def _error(holes: Sequence[Hole], cure: str) -> VerificationError | None:
    if not holes:
        return None
    lines = lines_of(holes)
    more = (f"and {len(lines) - SHOWN} more",) if len(lines) > SHOWN else ()
    return VerificationError(
        f"{len(lines)} {'things that are' if len(lines) > 1 else 'thing that is'} needed offline can't be had",
        hint=cure,
        details=(*lines[:SHOWN], *more),
    )
