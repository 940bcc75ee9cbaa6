"""A project's page for browsers, from the JSON page that installers get (PEP 691, 700, 740, 792). Pure.

So a browser shows what an installer sees: the same files, order of indexes, and rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from packaging.version import InvalidVersion, Version

from deployer.server.guard.rules import version_of
from deployer.server.mirrors.render import HELD
from deployer.server.web import words

VERSIONS = 30
"""Versions on one page of the list."""
FILES = 60
"""Files of one version that are shown."""
HELD_SHOWN = 20
UNKNOWN = "unknown"
"""The version of files whose names state none."""


@dataclass(frozen=True)
class FileRow:
    """A file. ``path``: on this server, without a slash at the start. ``index``: that serves it. ``here``: it is
    stored, so no upstream is asked for it. ``yanked``: the reason, which may be empty; None for a file that is not.
    """

    filename: str
    path: str
    index: str
    kind: str
    size: int | None
    uploaded: str
    sha256: str
    requires_python: str
    here: bool
    yanked: str | None
    has_metadata: bool
    provenance: str

    @property
    def size_words(self) -> str:
        return words.size(self.size)


@dataclass(frozen=True)
class Release:
    """A version and its files."""

    version: str
    files: Sequence[Mapping[str, Any]]

    @property
    def uploaded(self) -> str:
        """The date of its first file."""
        return min(filter(None, (words.day(file.get("upload-time")) for file in self.files)), default="")

    @property
    def yanked(self) -> bool:
        return all(is_yanked(file) for file in self.files)

    @property
    def prerelease(self) -> bool:
        parsed = _parsed(self.version)
        return parsed is not None and parsed.is_prerelease


@dataclass(frozen=True)
class HeldBack:
    """A file that a rule of a mirror keeps from clients."""

    filename: str
    index: str
    rule: str
    reason: str
    until: str


@dataclass(frozen=True)
class Project:
    """``releases``: the newest first. ``selected``: the one that is shown; None when there is none."""

    name: str
    releases: Sequence[Release]
    selected: Release | None
    files: Sequence[FileRow] = ()
    more_files: int = 0
    served_by: Sequence[str] = ()
    held: Sequence[HeldBack] = ()
    more_held: int = 0
    status: str = ""
    status_reason: str = ""
    latest: str = ""
    total_files: int = 0

    def listed(self, offset: int) -> Sequence[Release]:
        """One page of the list of versions."""
        return self.releases[offset : offset + VERSIONS]


def project(
    name: str, data: Mapping[str, Any], *, page: str, version: str = "", is_here: Callable[[str], bool]
) -> Project:
    """``data``: the JSON page, at path ``page``. ``version``: the wanted one, empty for the latest. ``is_here``:
    whether the file at a path of this server is stored."""
    files = [file for file in data.get("files", ()) if isinstance(file, dict) and isinstance(file.get("filename"), str)]
    releases = sorted_releases(name, files)
    latest = latest_of(releases)
    selected = _selected(releases, version or latest)
    shown = list(selected.files if selected else ())
    held = [_held(one) for one in _list(data.get(HELD)) if isinstance(one, dict)]
    status = data.get("project-status")
    status = status if isinstance(status, dict) else {}
    return Project(
        name=name,
        releases=releases,
        selected=selected,
        files=[_row(file, page, is_here) for file in shown[:FILES]],
        more_files=max(0, len(shown) - FILES),
        served_by=list(dict.fromkeys(index_of(_path(file, page)) for file in files)),
        held=held[:HELD_SHOWN],
        more_held=max(0, len(held) - HELD_SHOWN),
        status=_text(status.get("status")),
        status_reason=_text(status.get("reason")),
        latest=latest,
        total_files=len(files),
    )


def sorted_releases(name: str, files: Iterable[Mapping[str, Any]]) -> list[Release]:
    """The files by version, the newest version first; those without a valid one at the end."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for file in files:
        found.setdefault(version_of(file["filename"], name) or UNKNOWN, []).append(file)
    merged: dict[object, Release] = {}
    for version, of_one in found.items():
        key = _parsed(version) or version  # 1.0 and 1.0.0 are the same version
        known = merged.get(key)
        merged[key] = Release(known.version, [*known.files, *of_one]) if known else Release(version, of_one)
    return [merged[key] for key in sorted(merged, key=_order, reverse=True)]


def _order(key: object) -> tuple[bool, Any]:
    return isinstance(key, Version), key


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except (InvalidVersion, ValueError):  # too many digits for a number
        return None


def latest_of(releases: Sequence[Release]) -> str:
    """The version that installers take by default: final and not yanked, where there is one."""
    whole = [release for release in releases if not release.yanked] or list(releases)
    final = [release for release in whole if not release.prerelease and _parsed(release.version)] or whole
    return final[0].version if final else ""


def _selected(releases: Sequence[Release], version: str) -> Release | None:
    wanted = _parsed(version)
    return next(
        (one for one in releases if one.version == version or (wanted and _parsed(one.version) == wanted)), None
    )


def best_for_metadata(files: Sequence[FileRow]) -> FileRow | None:
    """The file whose metadata stand for the release: a stored wheel first, then the smallest wheel."""
    wheels = [file for file in files if file.has_metadata]
    return min(wheels, key=lambda file: (not file.here, file.size or 0), default=None)


def is_yanked(file: Mapping[str, Any]) -> bool:
    return file.get("yanked") not in (None, False)


def index_of(path: str) -> str:
    return "/".join(path.split("/")[:2])


def _path(file: Mapping[str, Any], page: str) -> str:
    """The path of a file on this server; its address is relative to its page."""
    return unquote(urlsplit(urljoin(f"http://localhost{page}", _text(file.get("url")))).path).lstrip("/")


def _row(file: Mapping[str, Any], page: str, is_here: Callable[[str], bool]) -> FileRow:
    path = _path(file, page)
    hashes = file.get("hashes")
    yanked = file.get("yanked")
    size = file.get("size")
    return FileRow(
        filename=file["filename"],
        path=path,
        index=index_of(path),
        kind=kind_of(file["filename"]),
        size=size if isinstance(size, int) else None,
        uploaded=words.day(file.get("upload-time")),
        sha256=_text(hashes.get("sha256")) if isinstance(hashes, dict) else "",
        requires_python=_text(file.get("requires-python"))[:100],
        here=is_here(path),
        yanked=(_text(yanked)[:300] if is_yanked(file) else None),
        has_metadata=bool(file.get("core-metadata")) and file["filename"].endswith(".whl"),
        provenance=f"{path}.provenance" if file.get("provenance") else "",
    )


def kind_of(filename: str) -> str:
    """What a file is, in a few words."""
    if filename.endswith(".whl"):
        tags = filename[:-4].split("-")[-3:]
        if tags[1:] == ["none", "any"]:
            return f"wheel for {_python(tags[0])}"
        return f"wheel for {_python(tags[0])}, {tags[-1]}" if len(tags) == 3 else "wheel"
    return "egg" if filename.endswith(".egg") else "source"


def _python(tag: str) -> str:
    return {"py3": "Python 3", "py2.py3": "any Python", "py2": "Python 2"}.get(tag, tag)


def _held(one: Mapping[str, Any]) -> HeldBack:
    return HeldBack(*(_text(one.get(key))[:300] for key in ("filename", "index", "rule", "reason", "until")))


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []
