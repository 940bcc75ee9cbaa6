"""``deployer locks check``: lock files that name a devpi index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Common
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    files: Annotated[
        list[str] | None, Argument(metavar="[FILE]...", help="Lock files; by default those of this directory.")
    ] = None
    allow: Annotated[
        list[str] | None,
        Option("--allow", metavar="USER/NAME", help="Packages of this index may be locked; may be repeated."),
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Find lock files that hold addresses of a devpi index.

    Exit code 9 if there is one. No server is asked.
    """
    import shlex

    from deployer.commands import index_name
    from deployer.errors import VerificationError
    from deployer.operations.locks import found, read, row

    allowed = [index_name(name) for name in options.allow or ()]
    locks = read(options.files or (), Path.cwd())
    hits = {lock.path: found(lock, allowed) for lock in locks}
    wrong = [str(path) for path, addresses in hits.items() if addresses]
    lines = [f"{path}:{one.line}: {one.shown}" for path, addresses in hits.items() for one in addresses]
    return Result(
        data={"files": [row(lock, hits[lock.path]) for lock in locks]},
        text="\n".join(lines),
        error=VerificationError(
            f"addresses of a devpi index in {', '.join(wrong)}", hint=f"deployer locks repair {shlex.join(wrong)}"
        )
        if wrong
        else None,
    )
