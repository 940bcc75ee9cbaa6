"""``deployer bundle load``: bring a deployment up from a bundle, or add the bundle's files to one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Exclusive, Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    file: Annotated[Path, Argument(metavar="FILE", help="Bundle: a tar file or a directory.")]
    verify: Annotated[
        Path | None, Option("--verify", metavar="KEY", help="Public SSH key that must have signed it.")
    ] = None
    no_pip: Annotated[bool, Option("--no-pip", help="Write no client file.")] = False


def run(options: Options, ui: UI) -> Result:
    """Load a bundle into a deployment; start one if there is none.

    Everything is verified, and compared with what is here, before anything changes: a file with the same name and other
    content is a conflict (exit code 5). Nothing here is overwritten. A second run goes on where the first one ended.
    The options of `up` apply to a deployment that a bundle has started.
    """
    from deployer.errors import VerificationError
    from deployer.operations.bundle_load import load, read

    opened = read(options.file, key=options.verify)
    if opened.signed and options.verify is None:
        ui.warn("the signature is not verified; to verify it: --verify KEY")
    done = load(
        opened,
        options.name,
        overrides=overrides(options),
        clients=not options.no_pip,
        lock_wait=options.wait,
        ui=ui,
    )
    error = None
    if done.invalid:
        error = VerificationError(
            f"not loaded: {done.invalid[0]}",
            hint="build it again, and upload it: deployer package upload",
            details=tuple(f"also: {line}" for line in done.invalid[1:]),
        )
    return Result(
        data={
            "url": done.url,
            "loaded": [f"{file.index}/{file.filename}" for file in done.loaded],
            "bytes": sum(file.size for file in done.loaded),
            "same": done.same,
            "invalid": list(done.invalid),
        },
        text=done.url,
        error=error,
    )
