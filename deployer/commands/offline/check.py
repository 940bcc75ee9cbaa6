"""``deployer offline check``: prove that requirements and lock files can be installed without an upstream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from deployer.commands import Located, index_name
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    requirements: Annotated[
        list[Path] | None,
        Option(
            "-r",
            "--requirements",
            metavar="FILE",
            help="Requirements, pyproject.toml, uv.lock, pylock.toml, poetry.lock or pdm.lock; may be repeated.",
        ),
    ] = None
    python: Annotated[
        list[str] | None,
        Option("--python", metavar="VERSION", help="Python, like 3.11,3.13; default: deployer's own."),
    ] = None
    platform: Annotated[
        list[str] | None,
        Option("--platform", metavar="NAME", help="Platform as uv names it, like linux; default: this host's."),
    ] = None
    index: Annotated[
        str, Option("--index", metavar="USER/NAME", callback=index_name, help="Index to ask, else the clients' one.")
    ] = ""


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
