"""Distribution files: their names, and the metadata for an upload."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deployer.devpi.answers import line
from deployer.distribution import Misnamed, NotADistribution, upload_form, version_of
from deployer.errors import ServerRefused, UsageError

if TYPE_CHECKING:
    from deployer.devpi.packages import ListedFile

MAX_REQUIREMENT = 1000
"""Largest requirement in characters; Python refuses numbers of thousands of digits."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A wheel or sdist on this host. ``form``: its metadata as the upload API takes it."""

    path: Path
    project: str
    version: str
    sha256: str
    form: dict[str, str | list[str]]


def parse_requirement(text: str) -> Requirement:
    """Parse ``NAME`` or ``NAME==VERSION``. Raises UsageError."""
    try:
        if len(text) <= MAX_REQUIREMENT:
            return Requirement(text)
    except InvalidRequirement:
        pass
    raise UsageError(f"{text[:80]!r} is not a project", hint="give NAME, or NAME==VERSION")


def exact_version(requirement: Requirement) -> str:
    """The one version that ``NAME==VERSION`` names; empty for ``NAME``. Raises UsageError for anything else."""
    pins = [one.version for one in requirement.specifier if one.operator in ("==", "===") and "*" not in one.version]
    if len(pins) != len(requirement.specifier) or len(pins) > 1:
        raise UsageError(f"{requirement} is not a single version", hint=f"give {requirement.name}==VERSION")
    return pins[0] if pins else ""


def newest(files: Sequence[ListedFile], requirement: Requirement) -> tuple[ListedFile, ...]:
    """The files of the highest version that satisfies ``requirement``. Raises ServerRefused when there is none."""
    by_version: dict[Version, list[ListedFile]] = {}
    for file in files:
        if (version := version_of(file.filename)) is not None:
            by_version.setdefault(version, []).append(file)
    found = sorted(requirement.specifier.filter(by_version))
    if not found:
        have = ", ".join(str(version) for version in sorted(by_version)[-5:])
        raise ServerRefused(
            f"{requirement} not found",
            hint=f"choose one of: {have}" if have else "list the packages: deployer package list",
        )
    return tuple(by_version[found[-1]])


def read(path: Path, *, sha256: str = "") -> Distribution:
    """Read a wheel or sdist. ``sha256``: of its content, if it is known.

    Raises UsageError when it is neither, or its name and metadata differ.
    """
    try:
        with path.open("rb") as stream:
            form = upload_form(path.name, stream)
            stream.seek(0)
            content = sha256 or hashlib.file_digest(stream, "sha256").hexdigest()
    except NotADistribution:
        raise UsageError(f"{path} is not a wheel or an sdist", hint="build one: python -m build") from None
    except Misnamed as other:
        raise UsageError(
            f"{path.name} holds {line(str(other))}, which has another file name", hint="build it again"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="name wheels, source archives, or directories of them"
        ) from None
    form["sha256_digest"] = content
    project = canonicalize_name(str(form["name"]))
    return Distribution(path=path, project=project, version=str(form["version"]), sha256=content, form=form)
