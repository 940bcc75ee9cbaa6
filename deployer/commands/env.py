"""``deployer env``: print the variables of the index for a shell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Common, OtherIndex, Transparent
from deployer.ui.output import UI, Result

FORMATS = ("sh", "github")


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    index: OtherIndex = ""
    transparent: Transparent = None
    pid: Annotated[
        int | None,
        Option("--pid", metavar="PID", min=1, help="The shell with which the proxy ends; default: the parent process."),
    ] = None
    format: Annotated[str, Option("--format", metavar="FORMAT", help="sh, or github: for the file $GITHUB_ENV.")] = "sh"


def run(options: Options, ui: UI) -> Result:
    """Print the variables of the index for a shell.

    For `eval "$(deployer env)"` in sh, bash or zsh, or `deployer env --format github >> "$GITHUB_ENV"`.
    With `--transparent` a proxy is started that ends with the shell.
    """
    import uuid

    from deployer.errors import UsageError
    from deployer.host.gather import runs
    from deployer.operations.environment import of_command

    if options.format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}")
    owner = options.pid or os.getppid()
    if not runs(owner):
        raise UsageError(f"--pid {owner}: there is no such process", hint="pass the pid of the shell: --pid $$")
    changes = of_command(options.name, os.environ, index=options.index, transparent=options.transparent, owner=owner)
    data = {"variables": dict(changes.values), "removed": list(changes.removed)}
    github = options.format == "github"
    text = changes.for_github(f"deployer-{uuid.uuid4()}") if github else changes.for_shell()
    return Result(data=data, text=text, warnings=changes.warnings)
