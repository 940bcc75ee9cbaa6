"""What a source distribution needs to be built: its ``build-system.requires`` (PEP 518). Its code does not run."""

from __future__ import annotations

import io
import tarfile
import tomllib
import zipfile
from contextlib import suppress
from typing import IO

from deployer.operations.warm.index import Index, NotFetched
from deployer.selection.pages import Listed

LEGACY = ("setuptools>=40.8.0",)
"""What pip and uv take where ``pyproject.toml`` names no build system."""
LARGEST = 512 << 20
LARGEST_PROJECT = 1 << 20


def build_requirements(index: Index, listed: Listed) -> tuple[str, ...]:
    """The build requirements of a source distribution that the server has; those of pip where it names none."""
    try:
        content = index.content(listed, most=LARGEST)
    except NotFetched:
        return ()
    return requires(content)


def requires(archive: bytes) -> tuple[str, ...]:
    """The build requirements of a source distribution; none of a file that is no archive."""
    try:
        project = _project(archive)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return ()
    try:
        system = tomllib.loads(project.decode()).get("build-system") if project else None
    except (ValueError, RecursionError):
        return ()
    if not isinstance(system, dict):
        return LEGACY
    named = system.get("requires", [])
    plain = [one for one in named if isinstance(one, str) and one.isprintable()] if isinstance(named, list) else []
    # A path of the archive, for a build system of its own, is no requirement; neither is an option.
    return tuple(sorted(one for one in plain if not one.startswith(("-", ".", "/"))))


def _project(archive: bytes) -> bytes:
    """``pyproject.toml`` of the top directory; empty without one."""
    if zipfile.is_zipfile(io.BytesIO(archive)):
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            name = next((name for name in packed.namelist() if _is_project(name)), None)
            return _limited(packed.open(name)) if name else b""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and _is_project(member.name):
                with suppress(KeyError):
                    stream = tar.extractfile(member)
                    return _limited(stream) if stream else b""
    return b""


def _is_project(name: str) -> bool:
    return name.removeprefix("./").count("/") == 1 and name.endswith("/pyproject.toml")


def _limited(stream: IO[bytes]) -> bytes:
    with stream:
        content = stream.read(LARGEST_PROJECT + 1)
    if len(content) > LARGEST_PROJECT:
        raise ValueError("pyproject.toml is too large")
    return content
