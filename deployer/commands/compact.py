"""``deployer compact``: write the database anew, without its unused pages."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Write the database anew, without its unused pages.

    The server stops for it, and starts again. devpi keeps the history of all its commits: only unused pages and
    fragments are won.
    """
    from deployer.diagnosis import size
    from deployer.operations.check import compact

    done = compact(options.profile, options.name, engine=options.engine, lock_wait=options.wait, ui=ui)
    ui.step("database", f"{size(done['before_bytes'])} before, {size(done['after_bytes'])} after")
    done.pop("version", None)
    return Result(data=done)
