"""``deployer start``: start a stopped deployment and wait until it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    timeout: Annotated[int, Option("--timeout", metavar="SECONDS", min=1, help="Deadline for readiness.")] = 60


def run(options: Options, ui: UI) -> Result:
    """Start a stopped server and wait until it is ready.

    The existing container or process starts unchanged, as after a boot.
    """
    from deployer.operations.start import start

    deadline = timedelta(seconds=options.timeout)
    deployment, ready = start(options.name, engine=options.engine, lock_wait=options.wait, deadline=deadline, ui=ui)
    return Result(data={"url": deployment.url, "timings": dict(ready.timings)})
