"""``deployer package download``: download the files of one version and verify them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.devpi.packages import ListedFile, PackageApi


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    requirement: Annotated[str, Argument(metavar="NAME[==VERSION]", help="Project; default: its newest version.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index, else the clients' one.")] = ""
    dest: Annotated[Path, Option("--dest", "-d", metavar="DIR", help="Target directory; default: this one.")] = Path()


def run(options: Options, ui: UI) -> Result:
    """Download the files of one version and verify their SHA-256.

    For dependencies, too: deployer exec -- pip download NAME.
    """
    from deployer.devpi.distributions import newest, parse_requirement

    index = client_index(options, options.index)
    requirement = parse_requirement(options.requirement)
    written, skipped = [], []
    with connect(options) as session:
        for file in newest(session.api.files(index, requirement.name), requirement):
            target = options.dest / file.filename
            if fetch(session.api, file, target):
                ui.step("download", str(target))
                written.append(str(target))
            else:
                ui.step("download", f"{target} exists already")
                skipped.append(str(target))
    return Result(
        data={"index": index, "downloaded": written, "skipped": skipped}, text="\n".join((*written, *skipped))
    )


def fetch(api: PackageApi, file: ListedFile, target: Path) -> bool:
    """Download ``file`` to ``target`` and verify its checksum; return False if it exists already.

    ``target`` is written completely or not at all. Raises ConflictError when a different file exists,
    VerificationError for a checksum mismatch.
    """
    from hashlib import file_digest

    from deployer.errors import ConflictError, VerificationError
    from deployer.files import replacing

    if target.exists():
        with target.open("rb") as stream:
            if file.sha256 and file_digest(stream, "sha256").hexdigest() == file.sha256:
                return False
        raise ConflictError(f"{target} exists and is another file", hint="choose another directory with --dest")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable=False) as stream:
            digest = api.download(file, stream)
            if file.sha256 and digest != file.sha256:
                raise VerificationError(
                    f"checksum mismatch of {file.filename}: SHA-256 {digest}, the index lists {file.sha256}",
                    hint="nothing was written; compare with the file on the upstream of the index",
                )
    except OSError as error:
        raise ConflictError(f"{target} can't be written: {error.strerror}", hint="choose another --dest") from None
    return True
