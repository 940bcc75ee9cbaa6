"""``deployer bundle manifest``: what this server has, for a delta bundle that is made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    out: Annotated[Path, Argument(metavar="OUT", help="File for the manifest; it is replaced.")]


def run(options: Options, ui: UI) -> Result:
    """Write which files are here, for `bundle create --since`.

    The small file travels back to where bundles are made: the next one holds only what is missing here.
    """
    from deployer.bundle.manifest import travelling
    from deployer.deployment.session import connect
    from deployer.errors import ConflictError
    from deployer.files import replacing
    from deployer.operations.contents import contents

    with connect(options.name, engine=options.engine) as session:
        told = travelling(contents(session, session.api.topology()).manifest)
    try:
        with replacing(options.out) as stream:
            stream.write(told.text.encode())
    except OSError as error:
        raise ConflictError(f"{options.out} can't be written: {error.strerror}", hint="name another file") from None
    ui.step("manifest", f"{options.out}: {len(told.files)} files")
    return Result(data={"path": str(options.out), "files": len(told.files)}, text=str(options.out))
