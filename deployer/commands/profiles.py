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

    if not options.show:
        found = available()
        width = max(len(profile.name) for profile in found) + 2
        lines = [f"{profile.name.ljust(width)}{profile.description}  ({profile.path})" for profile in found]
        return Result(
            data={"profiles": [{"name": p.name, "path": str(p.path), "description": p.description} for p in found]},
            text="\n".join(lines),
        )
    loaded = load(options.show)
    values = loaded.profile.model_dump(mode="json")
    flat = flatten(values)
    width = max(map(len, flat)) + 2
    lines = [f"{key.ljust(width)}{value}  ({loaded.sources.get(key, 'default')})" for key, value in flat.items()]
    return Result(data={"profile": values, "sources": dict(loaded.sources)}, text="\n".join(lines))
