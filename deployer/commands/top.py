"""``deployer top``: what happens on the server now, live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    once: Annotated[bool, Option("--once", help="Print one screen, and end.")] = False
    interval: Annotated[
        float, Option("--interval", metavar="SECONDS", min=0.5, max=3600, help="Seconds between two screens.")
    ] = 2.0


def run(options: Options, ui: UI) -> Result:
    """Show requests, hits, upstreams and threads, live.

    Ctrl-C ends it. Where the output is no terminal, one screen is printed; with --json, the data of one. The counts are
    those of `deployer stats`.
    """
    import time

    from deployer.deployment.session import connect
    from deployer.operations.top import activity, frame

    with connect(options.name, engine=options.engine) as session:
        now = activity(session, 20)
        title = f"deployer top  {options.name}  {session.api.url}"
        if options.once or options.json or not ui.out.isatty():
            text = frame(now, None, seconds=0, title=title, width=80, height=24)
            return Result(data=dict(now), text=text)
        before, asked = None, time.monotonic()
        try:
            with ui.live() as (show, width, height):
                while True:
                    moment = time.monotonic()
                    show(frame(now, before, seconds=moment - asked, title=title, width=width(), height=height()))
                    before, asked = now, moment
                    time.sleep(options.interval)
                    now = activity(session, 100)
        except KeyboardInterrupt:
            return Result()
