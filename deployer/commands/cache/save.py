"""``deployer cache save``: write the cached files that a job needs into a directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    directory: Annotated[Path, Argument(metavar="DIR", help="Directory of the saved files; the next save reuses it.")]
    requirements: Annotated[
        list[Path] | None,
        Option("--requirements", "-r", metavar="FILE", help="Only the releases of this lock file; may be repeated."),
    ] = None
    max_size: Annotated[
        str,
        Option("--max-size", metavar="SIZE", help="Save at most so much, like 500m; the largest files are left out."),
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Write the cached files that a job needs into a directory.

    Without -r these are the files that clients have asked for since the server was created. `cache restore` gives them
    to another server. Files in the directory that are not needed any more are removed from it. If it has exactly these
    files already, it is not touched. Uploads are not saved.
    """
    from deployer import selection
    from deployer.deployment.session import connect
    from deployer.diagnosis import size
    from deployer.errors import UsageError
    from deployer.operations.saved_cache import save
    from deployer.protocol import parse_size

    try:
        most = parse_size(options.max_size) if options.max_size else None
    except ValueError:
        raise UsageError(f"--max-size {options.max_size!r} is not a size", hint="write it like 500m or 2g") from None
    locks = options.requirements
    wanted = None if locks is None else selection.merged([one for path in locks for one in selection.read(path)])
    with connect(options.name, engine=options.engine) as session:
        done = save(session, options.directory, wanted=wanted, most=most, ui=ui)
    changed = "saved" if done.changed else "unchanged"
    return Result(
        data={
            "directory": str(options.directory),
            "files": len(done.files),
            "bytes": done.bytes,
            "changed": done.changed,
            "sha256": done.sha256,
            "dropped": done.dropped,
            "too_large": len(done.too_large),
            "missing": list(done.missing),
        },
        text=f"{options.directory}: {len(done.files)} files, {size(done.bytes)} ({changed})",
    )
