"""``deployer profiles``: the list of profiles, or every value of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Common
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    show: Annotated[str, Argument(metavar="[NAME|PATH]", help="Show every value of this profile with its source.")] = ""


def run(options: Options, ui: UI) -> Result:
    """List profiles, or show one with the source of each value."""
    from deployer.profile.load import load
    from deployer.profile.load.files import available
    from deployer.profile.load.layers import flatten
    from deployer.ui.table import columns

    if not options.show:
        found = available()
        return Result(
            data={"profiles": [{"name": p.name, "path": str(p.path), "description": p.description} for p in found]},
            text=columns([(p.name, f"{p.description}  ({p.path})") for p in found]),
        )
    loaded = load(options.show)
    values = loaded.profile.model_dump(mode="json")
    flat = flatten(values)
    text = columns([(key, f"{value}  ({loaded.sources.get(key, 'default')})") for key, value in flat.items()])
    return Result(data={"profile": values, "sources": dict(loaded.sources)}, text=text)
