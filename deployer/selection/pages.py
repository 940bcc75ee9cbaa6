"""Which files of a project's page are wanted. Pure: the page is what the server sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

from deployer.selection.targets import Target
from deployer.selection.wanted import LockedFile, Wanted


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file of a page. ``path``: its address on the server, empty for one elsewhere."""

    file: LockedFile
    path: str
    requires_python: str = ""

    @property
    def key(self) -> str:
        """What names it among the files of all pages: its path, else its name."""
        return self.path or self.file.name

    def runs_on(self, target: Target) -> bool:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            return SpecifierSet(self.requires_python).contains(target.environment["python_full_version"], True)
        except InvalidSpecifier:
            return True  # as pip has it


@dataclass(frozen=True, kw_only=True)
class ProjectPage:
    """``files``: empty where the index has no such project."""

    project: str
    files: tuple[Listed, ...] = ()
    by_name: Mapping[str, Listed] = field(default_factory=dict)

    @classmethod
    def read(cls, project: str, body: object, *, path: str) -> ProjectPage:
        """A page in JSON (PEP 691) that was asked for at ``path``. Raises ValueError."""
        listed = body.get("files") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise ValueError("not a page of a package index")
        files = tuple(_listed(entry, path) for entry in listed if isinstance(entry, dict))
        return cls(project=project, files=files, by_name={one.file.name: one for one in files})

    @cached_property
    def versions(self) -> dict[str, list[Listed]]:
        """The files by version, in its normal form."""
        found: dict[str, list[Listed]] = {}
        for one in self.files:
            found.setdefault(_version_of(one.file.name), []).append(one)
        found.pop("", None)
        return found

    def chosen(self, wanted: Wanted, target: Target) -> Listed | str | None:
        """The file of ``wanted`` that an installer takes; None if the version has none for ``target``, and else why
        there is none."""
        if wanted.files:
            file = target.chosen(wanted.files)
            return None if file is None else self._found(file, wanted)
        named = self.versions.get(_normal(wanted.version), [])
        if not named:
            return "no such version"
        allowed = [one for one in named if wanted.allows(one.file)]
        if not allowed:
            return "another hash than that of the requirements"
        best = target.chosen(one.file for one in allowed)
        return None if best is None else self.by_name[best.name]

    def _found(self, file: LockedFile, wanted: Wanted) -> Listed | str:
        one = self.by_name.get(file.name)
        if one is None:
            return "no such file"
        if file.sha256 and one.file.sha256 and file.sha256 != one.file.sha256:
            return "another hash than that of the lock file"
        return one

    def newest(self, number: int, target: Target) -> list[Listed]:
        """A file of each of the newest versions for ``target``. Pre-releases count if there is nothing else."""
        from packaging.version import Version

        ordered = sorted(map(Version, self.versions), reverse=True)
        final = [version for version in ordered if not version.is_prerelease] or ordered
        found: list[Listed] = []
        for version in final:
            fitting = [one.file for one in self.versions[str(version)] if one.runs_on(target)]
            best = target.chosen(fitting)
            if best is not None and len(found) < number:
                found.append(self.by_name[best.name])
        return found


def _listed(entry: Mapping[str, Any], page: str) -> Listed:
    name, url = entry.get("filename"), entry.get("url")
    if not isinstance(name, str) or not isinstance(url, str) or "/" in name:
        raise ValueError("a file without a name and an address")
    joined = urlsplit(urljoin(f"http://localhost{page}", url))
    hashes, requires = entry.get("hashes"), entry.get("requires-python")
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
    size = entry.get("size")
    return Listed(
        file=LockedFile(
            name=name,
            sha256=sha256 if isinstance(sha256, str) else "",
            size=size if type(size) is int else None,
        ),
        path=joined.path if joined.netloc == "localhost" and joined.path.isascii() else "",
        requires_python=requires if isinstance(requires, str) else "",
    )


def _normal(version: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(version))
    except InvalidVersion:
        return ""


def _version_of(filename: str) -> str:
    """The version of a wheel or a source distribution, in its normal form; empty for any other file."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        parse = parse_wheel_filename if filename.endswith(".whl") else parse_sdist_filename
        return str(parse(filename)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""


def names(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """The projects of ``wanted``, sorted, each once."""
    return tuple(sorted({item.project for item in wanted}))
