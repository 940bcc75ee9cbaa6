"""``deployer package upload``: upload wheels and sdists to a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.devpi.distributions import Distribution


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    files: Annotated[list[Path], Argument(metavar="FILE...", help="Wheels and sdists, or directories of them.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index, else the clients' one.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Upload wheels and sdists; skip files that are already there.

    It reads every file before the first upload. A file of the same name with other content is a conflict.
    """
    from deployer.devpi.distributions import read

    index = client_index(options, options.index)
    found = [read(path) for path in _paths(options.files)]
    done: dict[str, list[str]] = {"uploaded": [], "skipped": []}
    with connect(options) as session:
        existing = {project: session.api.uploaded(index, project) for project in {one.project for one in found}}
        _check(found, existing, index)
        api = None
        for one in found:
            if existing[one.project].get(one.path.name) == one.sha256:
                done["skipped"].append(one.path.name)
                continue
            api = api or session.login()
            with ui.working("upload", one.path.name) as progress, one.path.open("rb") as stream:
                size = one.path.stat().st_size
                api.upload(index, one.form, filename=one.path.name, content=Counted(stream, size, progress))
            done["uploaded"].append(one.path.name)
            ui.step("upload", f"{one.path.name} -> {index}")
    for name in done["skipped"]:
        ui.step("upload", f"{name} exists already on {index}")
    return Result(data={"index": index, **done})


def _paths(given: list[Path]) -> list[Path]:
    from deployer.errors import UsageError

    paths: dict[Path, None] = {}
    for path in given:
        listed = sorted((*path.glob("*.whl"), *path.glob("*.tar.gz"))) if path.is_dir() else [path]
        if not listed:
            raise UsageError(f"no wheel or sdist in {path}", hint="python -m build")
        paths |= dict.fromkeys(listed)
    return list(paths)


def _check(found: list[Distribution], existing: dict[str, dict[str, str]], index: str) -> None:
    """Raise ConflictError if a file exists with other content; ``existing``: SHA-256 by file name by project."""
    from deployer.errors import ConflictError

    other = [
        one.path.name for one in found if existing[one.project].get(one.path.name, one.sha256) not in ("", one.sha256)
    ]
    if other:
        raise ConflictError(
            f"{other[0]} exists on {index} with other content",
            hint="upload it under a new version",
            details=tuple(f"also: {name}" for name in other[1:]),
        )


class Counted(BufferedReader):
    """A file that reports the percentage that was read."""

    def __init__(self, stream: BufferedReader, size: int, progress: Callable[[str], None]) -> None:
        super().__init__(stream.raw)
        self._size, self._progress = size, progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._size:
            self._progress(f"{100 * self.tell() // self._size} %")
        return data
