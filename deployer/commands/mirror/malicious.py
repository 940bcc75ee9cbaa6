"""``deployer mirror malicious``: have every mirror refuse releases that are known to be malicious."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    paths: Annotated[
        list[Path] | None,
        Argument(metavar="[PATH]...", help="Files in OSV's format, ZIP archives or directories of them."),
    ] = None
    clear: Annotated[bool, Option("--clear", help="Remove the list.")] = False


def run(options: Options, ui: UI) -> Result:
    """Load the list of malicious releases that no mirror lets in.

    Without a path it shows how many there are. The list replaces the one before, and holds from the next request on,
    also for files that are stored. Advisories whose id begins with MAL- count. Nothing is downloaded.
    """
    from deployer.deployment.find import require
    from deployer.deployment.lock import hold
    from deployer.errors import UsageError
    from deployer.operations.malicious import give, known, read

    if options.clear and options.paths:
        raise UsageError("--clear takes no path", hint="deployer mirror malicious --clear")
    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        changed = False
        if options.clear or options.paths:
            wanted = read(options.paths or ())
            if options.paths and not wanted.names:
                raise UsageError(
                    "no advisory on a malicious package of PyPI in these files",
                    hint="name files whose id begins with MAL-; --clear removes the list",
                )
            changed = give(deployment, wanted)
        else:
            wanted = known(deployment)
    projects = len(wanted.names)
    ui.step("malicious", f"{wanted.advisories} advisories on {projects} projects{', loaded' if changed else ''}")
    return Result(data={"advisories": wanted.advisories, "projects": projects, "changed": changed})
