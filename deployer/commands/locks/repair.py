"""``deployer locks repair``: the upstream's addresses in the place of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument

from deployer.commands import Comparing, client_settings
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Comparing):
    files: Annotated[
        list[str] | None, Argument(metavar="[FILE]...", help="Lock files; by default those of this directory.")
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Replace our addresses in lock files by the upstream's.

    Each file is found at the upstream by its name and hash. Private packages keep their addresses, and are named. Exit
    code 9 if anything else has to be left.
    """
    from deployer.devpi.upstreams import UpstreamApi
    from deployer.errors import VerificationError
    from deployer.operations.locks import Server, mended, read, reasons, row, server_of, write

    locks = read(options.files or (), Path.cwd())
    with UpstreamApi(server_of(client_settings(options).index_url)) as api:
        server = Server(api)
        results = [(lock, mended(lock, server)) for lock in locks]
    warnings, wrong = [], []
    for lock, result in results:
        if result.text != lock.text:
            write(lock, result.text)
        ui.step("lock", f"{lock.path}: {result.replaced} addresses replaced")
        warnings += [f"{lock.path}: {line}" for line in reasons([one for one in result.left if one.private])]
        wrong += [f"{lock.path}: {line}" for line in reasons([one for one in result.left if not one.private])]
    return Result(
        data={
            "files": [
                {**row(lock, [one.address for one in result.left]), "replaced": result.replaced}
                for lock, result in results
            ]
        },
        warnings=tuple(warnings),
        error=VerificationError(wrong[0], hint="make the lock file anew", details=tuple(wrong[1:])) if wrong else None,
    )
