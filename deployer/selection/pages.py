"""Which files of a project's page are wanted. Pure: the page is what the server sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """A page of an index; most of its files are never looked at, so each is read when it is.

    ``entries``: the file objects by name, empty where the index has no such project. ``path``: the page's own.
    """

    project: str
    path: str = "/"
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, project: str, body: object, *, path: str) -> ProjectPage:
        """A page in JSON (PEP 691) that was asked for at ``path``. Raises ValueError."""
        listed = body.get("files") if isinstance(body, dict) else None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise ValueError("not a page of a package index")
        entries = {name: entry for entry in listed if isinstance(name := entry.get("filename"), str)}
        return cls(project=project, path=path, entries=entries)

    def file(self, name: str) -> Listed | None:
        """The file of that name."""
        entry = self.entries.get(name)
        return None if entry is None else _listed(name, entry, self.path)

    def of_version(self, version: str) -> list[Listed]:
        """The files of a version, however their names spell it."""
        from packaging.version import InvalidVersion, Version

        try:
            wanted = Version(version)
        except InvalidVersion:
            return []
        release = ".".join(map(str, wanted.release)).rstrip(".0") or "0"
        begins = re.compile(rf"-v?({wanted.epoch}!)?{re.escape(release)}")
        # To read the version of each of thousands of names takes long.
        likely = [name for name in self.entries if begins.search(name) and version_of(name) == str(wanted)]
        return [listed for name in likely if (listed := self.file(name)) is not None]

    def chosen(self, wanted: Wanted, target: Target) -> Listed | str | None:
        """The file of ``wanted`` that an installer takes; None if the version has none for ``target``, and else why
        there is none."""
        if wanted.files:
            file = target.chosen(wanted.files)
            return None if file is None else self._found(file, wanted)
        named = self.of_version(wanted.version)
        if not named:
            return "no such version"
        allowed = [one for one in named if wanted.allows(one.file)]
        if not allowed:
            return "another hash than that of the requirements"
        best = target.chosen(one.file for one in allowed)
        return None if best is None else self.file(best.name)

    def _found(self, file: LockedFile, wanted: Wanted) -> Listed | str:
        one = self.file(file.name)
        if one is None:
            return "no such file"
        if file.sha256 and one.file.sha256 and file.sha256 != one.file.sha256:
            return "another hash than that of the lock file"
        return one

    def newest(self, number: int, target: Target) -> list[Listed]:
        """A file of each of the newest versions for ``target``. Pre-releases count if there is nothing else."""
        from packaging.version import Version

        versions = sorted({Version(text) for text in map(version_of, self.entries) if text}, reverse=True)
        final = [version for version in versions if not version.is_prerelease] or versions
        found: list[Listed] = []
        for version in final:
            if len(found) == number:
                break
            best = target.chosen(one.file for one in self.of_version(str(version)) if one.runs_on(target))
            listed = best and self.file(best.name)
            found += [listed] if listed else []
        return found


def _listed(name: str, entry: Mapping[str, Any], page: str) -> Listed:
    url, hashes = entry.get("url"), entry.get("hashes")
    path = _path(url, page) if isinstance(url, str) else ""
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
    size, requires = entry.get("size"), entry.get("requires-python")
    return Listed(
        file=LockedFile(
            name=name, sha256=sha256 if isinstance(sha256, str) else "", size=size if type(size) is int else None
        ),
        path=path,
        requires_python=requires if isinstance(requires, str) else "",
    )


def _path(url: str, page: str) -> str:
    """The path on the server that a link of ``page`` leads to; empty for a link to elsewhere."""
    try:
        joined = urlsplit(urljoin(f"http://localhost{page}", url))
    except ValueError:
        return ""
    return joined.path if joined.netloc == "localhost" and joined.path.isascii() else ""


def version_of(filename: str) -> str:
    """The version of a wheel or a source distribution, in its normal form; empty for any other file."""
    return _parsed(filename)[1]


def project_of(filename: str) -> str:
    """The project of a wheel or a source distribution, normalised; empty for any other file."""
    return _parsed(filename)[0]


def _parsed(filename: str) -> tuple[str, str]:
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        parse = parse_wheel_filename if filename.endswith(".whl") else parse_sdist_filename
        project, version = parse(filename)[:2]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return "", ""
    return str(project), str(version)


def names(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """The projects of ``wanted``, sorted, each once."""
    return tuple(sorted({item.project for item in wanted}))
