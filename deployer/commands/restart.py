"""``deployer restart``: have the server begin anew, and wait until it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    cold: Annotated[
        bool, Option("--cold", help="Stop it first: it gets the host's name servers, limits and nginx anew.")
    ] = False
    timeout: Annotated[int, Option("--timeout", metavar="SECONDS", min=1, help="Deadline for readiness.")] = 60


def run(options: Options, ui: UI) -> Result:
    """Restart the server and wait until it is ready.

    It goes on serving what is stored meanwhile; with `--cold`, clients are refused until it is back.
    """
    from deployer.operations.start import restart

    deadline = timedelta(seconds=options.timeout)
    deployment, ready = restart(
        options.name, engine=options.engine, cold=options.cold, lock_wait=options.wait, deadline=deadline, ui=ui
    )
    return Result(data={"url": deployment.url, "timings": dict(ready.timings)})
