"""``deployer plugins lock``: pin the plugins of the profile, and what they need, by hash."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    pass


def run(options: Options, ui: UI) -> Result:
    """Pin the plugins of the profile, and what they need, by hash.

    It writes a lock file beside the profile. `up` installs exactly that: into deployer's own image, or on the process
    engine into a directory of the deployment. The wheels come from the index of this host's pip.
    """
    from deployer.operations.plugins import lock
    from deployer.profile.load import load

    loaded = load(options.profile, overrides=overrides(options))
    with ui.working("plugins", "asking the index"):
        locked = lock(loaded, options.name)
    for pin in locked.hashes:
        ui.step("plugin", pin)
    ui.step("lock", f"{locked.path} ({'written' if locked.changed else 'unchanged'})")
    if locked.changed:
        ui.note("the server gets them with: deployer up")
    data = {"path": str(locked.path), "changed": locked.changed, "pinned": list(locked.hashes)}
    return Result(data=data, text=str(locked.path))
