"""``deployer restart``: stop, start, and wait until it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    timeout: Annotated[int, Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")] = 60


def run(options: Options, ui: UI) -> Result:
    """Restart the server and wait until it truly answers."""
    from deployer.deployment import require
    from deployer.readiness import wait
    from deployer.state import hold

    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        engine, server_dir = deployment.engine, deployment.server_dir
        with ui.working("server", f"restarting {options.name}"):
            engine.stop(options.name, timeout=timedelta(seconds=30))
            engine.start(options.name)
            ready = wait(
                url=deployment.url,
                engine=engine,
                name=options.name,
                expected_uuid=server_dir.uuid if server_dir else lambda: None,
                proof_key=server_dir.proof_key if server_dir else lambda: None,
                credentials=None,
                index=None,
                deadline=timedelta(seconds=options.timeout),
                on_stage=lambda stage, seconds: None,
            )
        seconds = max(ready.timings.values(), default=0.0)
        ui.step("ready", f"{deployment.url} in {seconds:.1f} s")
    return Result(data={"url": deployment.url, "timings": dict(ready.timings)})
