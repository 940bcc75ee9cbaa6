"""``deployer package show``: the versions and files of a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    project: Annotated[str, Argument(metavar="NAME", help="Name of the project.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index, else the clients' one.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Show the versions and files of a project, as pip sees them."""
    from deployer.distribution import version_of
    from deployer.errors import ServerRefused
    from deployer.ui.table import columns

    index = client_index(options, options.index)
    with connect(options) as session:
        files = session.api.files(index, options.project)
    if not files:
        raise ServerRefused(f"there is no project {options.project} on {index}", hint="deployer package list")
    rows = [
        {"filename": file.filename, "version": str(version or ""), "sha256": file.sha256, "url": file.url}
        for version, file in sorted(
            ((version_of(file.filename), file) for file in files),
            key=lambda pair: (pair[0] is not None, pair[0] or 0, pair[1].filename),
            reverse=True,
        )
    ]
    versions = list(dict.fromkeys(row["version"] for row in rows if row["version"]))
    text = columns([(row["version"], row["filename"]) for row in rows])
    return Result(data={"index": index, "versions": versions, "files": rows}, text=text)
