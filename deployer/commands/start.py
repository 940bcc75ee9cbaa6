"""``deployer start``: start a deployment that was stopped, and wait until it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    timeout: Annotated[int, Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")] = 60


def run(options: Options, ui: UI) -> Result:
    """Start what was stopped and wait until it answers.

    Nothing is made or changed: what there is of the deployment is started as it is, as after a boot.
    """
    from deployer.operations.start import start

    deadline = timedelta(seconds=options.timeout)
    deployment, ready = start(options.name, engine=options.engine, lock_wait=options.wait, deadline=deadline, ui=ui)
    return Result(data={"url": deployment.url, "timings": dict(ready.timings)})
