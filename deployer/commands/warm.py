"""``deployer warm``: have the server fetch what requirements and lock files need, before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import AskedIndex, Located, Platforms, Pythons, Requirements
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.warm import Warmed


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    requirements: Requirements = None
    asked: Annotated[
        bool, Option("--asked", help="Fetch what clients asked for in vain while the server was offline.")
    ] = False
    watched: Annotated[bool, Option("--watched", help="Fetch what the files under `warm` in the profile need.")] = False
    python: Pythons = None
    platform: Platforms = None
    top: Annotated[
        int, Option("--top", metavar="N", min=0, max=1000, help="The N newest versions of each project, too.")
    ] = 0
    build_deps: Annotated[bool, Option("--build-deps", help="What source distributions need to be built, too.")] = False
    index: AskedIndex = ""
    jobs: Annotated[int, Option("--jobs", metavar="N", min=1, max=64, help="Files at a time.")] = 16


def run(options: Options, ui: UI) -> Result:
    """Cache what requirements and lock files need.

    uv, or pip where there is no uv, resolves requirements through the index, for each Python and platform; lock files
    are read as they are. What the server has is not fetched again, so an interrupted run can be repeated. Exit code 9
    means that something is missing.
    """
    from deployer.operations.warm import error_of
    from deployer.operations.warm.command import Request, warm

    request = Request(
        sources=tuple(options.requirements or ()),
        asked=options.asked,
        watched=options.watched,
        pythons=tuple(options.python or ()),
        platforms=tuple(options.platform or ()),
        index=options.index,
        top=options.top,
        build_deps=options.build_deps,
        jobs=options.jobs,
    )
    index, targets, found = warm(options.name, options.engine, request, ui)
    for line in found.unfit:
        ui.warn(line)
    return Result(
        data={
            "index": index,
            "targets": [{"python": target.python, "platform": target.platform} for target in targets],
            "cached": len(found.cached),
            "fetched": list(found.fetched),
            "bytes": found.bytes,
            "missing": [vars(one) for one in found.missing],
            "unresolved": [one.message for one in found.unresolved],
        },
        text=_text(found),
        error=error_of(found),
    )


def _text(found: Warmed) -> str:
    from deployer.diagnosis import size

    missing = f", {len(found.missing)} missing" if found.missing else ""
    return f"{len(found.cached)} files cached, {len(found.fetched)} fetched ({size(found.bytes)}){missing}"
