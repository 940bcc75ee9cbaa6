"""``deployer mirror refresh``: have the server ask upstreams anew, whatever it has stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.refresh import Refreshed


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    index: Annotated[str, Argument(metavar="[INDEX]", help="Name of the mirror; default: all mirrors.")] = ""
    projects: Annotated[
        list[str] | None, Argument(metavar="[PROJECT]...", help="Projects; default: all that the server has pages of.")
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Ask the upstreams anew for pages that the server has.

    A release that was just published can be installed at once. Pages that did not change stay as they are, and so do
    those of an upstream that does not answer (exit code 7).
    """
    from deployer.deployment.session import connect
    from deployer.errors import ServerRefused
    from deployer.operations.refresh import refresh
    from deployer.protocol import Outcome

    with connect(options.name, engine=options.engine) as session:
        found = refresh(session, options.index, options.projects or ())
    error = None
    if found.silent:
        error = ServerRefused(f"no answer from the upstream of {', '.join(found.silent)}", hint="deployer doctor")
    return Result(
        data={
            "mirrors": sorted(found.mirrors),
            "changed": list(found.of(Outcome.CHANGED)),
            "unchanged": len(found.of(Outcome.UNCHANGED)),
            "gone": list(found.of(Outcome.GONE)),
            "unanswered": list(found.of(Outcome.NO_ANSWER)),
        },
        text=_text(found),
        error=error,
    )


def _text(found: Refreshed) -> str:
    from deployer.protocol import Outcome

    lines = []
    for outcome in (Outcome.CHANGED, Outcome.UNCHANGED, Outcome.GONE, Outcome.NO_ANSWER):
        names = found.of(outcome)
        listed = f" ({', '.join(names)})" if names and outcome is not Outcome.UNCHANGED else ""
        lines.append(f"{outcome}: {len(names)}{listed}")
    return "\n".join(lines)
