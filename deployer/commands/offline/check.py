"""``deployer offline check``: prove that requirements and lock files can be installed without an upstream."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import AskedIndex, Located, Platforms, Pythons, Requirements
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    requirements: Requirements = None
    python: Pythons = None
    platform: Platforms = None
    index: AskedIndex = ""


def run(options: Options, ui: UI) -> Result:
    """Prove that requirements and lock files install offline.

    pip and uv install them with deployer's own Python, in a network namespace with no way out but the index, and are
    thrown away. For other Pythons and platforms uv resolves there, and each file is read. The server answers these
    requests from its cache only; other clients are not affected. Exit code 9 means that something is missing.
    """
    from deployer.operations.offline_check.command import check

    return check(
        options.name,
        options.engine,
        sources=tuple(options.requirements or ()),
        pythons=tuple(options.python or ()),
        platforms=tuple(options.platform or ()),
        index=options.index,
        ui=ui,
    )
