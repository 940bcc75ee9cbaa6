"""Distribution files: their names, and the metadata for an upload."""

from __future__ import annotations

import hashlib
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from deployer.devpi.answers import line
from deployer.errors import ServerRefused, UsageError

if TYPE_CHECKING:
    from deployer.devpi.packages import ListedFile

MAX_METADATA = 16 * 1024 * 1024
"""Largest metadata of a distribution in bytes."""
MAX_REQUIREMENT = 1000
"""Largest requirement in characters; Python refuses numbers of thousands of digits."""
_LIST_FIELDS = {"platforms": "platform", "supported_platforms": "supported_platform", "license_files": "license_file"}


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A wheel or sdist on this host. ``form``: its metadata as the upload API takes it."""

    path: Path
    project: str
    version: str
    sha256: str
    form: dict[str, str | list[str]]


def version_of(filename: str) -> Version | None:
    """The version in the name of a wheel or sdist; None for any other file."""
    try:
        return parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename, ValueError):
        return None


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
        metadata = _metadata(path)
        with path.open("rb") as stream:
            content = sha256 or hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        if error.strerror is None:  # gzip raises this for invalid content
            raise _no_distribution(path) from None
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="name wheels, source archives, or directories of them"
        ) from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, KeyError, EOFError, NotImplementedError):
        raise _no_distribution(path) from None
    raw, _ = parse_email(metadata)
    name, version, named = raw.get("name", ""), raw.get("version", ""), version_of(path.name)
    if named is None or not name or named != _version(version) or not _starts(path.name, name):
        raise UsageError(
            f"{path.name} holds {line(f'{name} {version}')}, which has another file name",
            hint="build it again",
        )
    wheel = path.suffix == ".whl"
    form: dict[str, str | list[str]] = {
        ":action": "file_upload",
        "protocol_version": "1",
        "filetype": "bdist_wheel" if wheel else "sdist",
        "pyversion": path.name.split("-")[-3] if wheel else "source",
        "sha256_digest": content,
        **_fields(dict(raw)),
    }
    return Distribution(path=path, project=canonicalize_name(name), version=version, sha256=content, form=form)


def _no_distribution(path: Path) -> UsageError:
    return UsageError(f"{path} is not a wheel or an sdist", hint="build one: python -m build")


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:  # also for a number of thousands of digits
        return None


def _starts(filename: str, name: str) -> bool:
    return canonicalize_name(filename).startswith(canonicalize_name(name) + "-")


_ZIPPED = {".whl": r"[^/]+\.dist-info/METADATA", ".zip": r"[^/]+/PKG-INFO"}
"""Where the metadata stand in a zip archive, by the end of its name."""


def _metadata(path: Path) -> bytes:
    if path.suffix in _ZIPPED:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if re.fullmatch(_ZIPPED[path.suffix], name)]
            if len(found) != 1:
                raise KeyError("it has no metadata")
            with archive.open(found[0]) as stream:
                return _capped(stream.read(MAX_METADATA + 1))
    with tarfile.open(path) as archive:
        for member in archive:
            # Only read, never unpacked: any directory name is safe.
            if member.isfile() and re.fullmatch(r"[^/]+/PKG-INFO", member.name.removeprefix("./")):
                content = archive.extractfile(member)
                return _capped(content.read(MAX_METADATA + 1)) if content else b""
    raise KeyError("it has no PKG-INFO")


def _capped(data: bytes) -> bytes:
    if len(data) > MAX_METADATA:
        raise KeyError("its metadata is far too long")
    return data


def _fields(raw: dict[str, Any]) -> dict[str, str | list[str]]:
    fields: dict[str, str | list[str]] = {}
    for key, value in raw.items():
        match value:
            case str():
                fields[key] = value
            case dict():
                fields[key] = [f"{label}, {url}" for label, url in value.items()]
            case list() if key == "keywords":
                fields[key] = ",".join(value)
            case list():
                fields[_LIST_FIELDS.get(key, key)] = value
            case _:
                pass
    return fields
