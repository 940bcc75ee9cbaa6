"""``deployer exec``: run one command with the index in its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Common, OtherIndex, Transparent
from deployer.ui.output import UI, Result

CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    command: Annotated[list[str], Argument(metavar="COMMAND...", help="Command to run, after `--`.")] = None  # type: ignore[assignment]
    index: OtherIndex = ""
    transparent: Transparent = None


def run(options: Options, ui: UI) -> Result:
    """Run one command with the index in its environment.

    pip and uv read the index from the environment; no client file changes. With `--transparent` every client keeps the
    upstream's addresses, and a proxy that lives as long as the command answers for them. If the index does not answer,
    the command is not run (exit code 6), unless clients.fallback of the profile allows the upstream in its place. The
    exit code is that of the command, 127 if it does not exist, 126 if it can't be executed.
    """
    from deployer.errors import NotExecutable, NotFound, UsageError
    from deployer.operations.environment import of_command

    if not options.command:
        raise UsageError("no command to run", hint="deployer exec -- pip install NAME")
    changes = of_command(
        options.name, os.environ, index=options.index, transparent=options.transparent, owner=os.getpid()
    )
    for line in changes.warnings:
        ui.warn(line)
    try:
        # The command takes our place: exit code, signals and terminal are its own.
        os.execvpe(options.command[0], options.command, changes.applied(os.environ))  # noqa: S606 - the user's own command, no shell
    except FileNotFoundError as error:
        raise NotFound(f"{options.command[0]}: {error.strerror}", hint="name a program after --") from None
    except OSError as error:
        raise NotExecutable(f"{options.command[0]}: {error.strerror}", hint="name a program after --") from None
