"""Read the lock files of uv, pip, poetry and pdm. Every value is checked: others may have written them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from deployer.selection.wanted import LockedFile, NotReadable, Wanted

_PYLOCK = re.compile(r"pylock(\.[^.]+)?\.toml")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def format_of(name: str) -> str | None:
    """The format of a lock file by the file's name (``pylock.NAME.toml``: PEP 751); None for any other file."""
    if _PYLOCK.fullmatch(name):
        return "pylock"
    return {"uv.lock": "uv", "poetry.lock": "poetry", "pdm.lock": "pdm"}.get(name)


class _Entries:
    """The packages of a lock file, each as a mapping. Raises NotReadable for anything else than tables and lists."""

    def __init__(self, text: str, path: str, key: str) -> None:
        self.path = path
        try:
            whole = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise NotReadable(f"{path}: not TOML: {error}", hint="make the lock file anew") from None
        listed = whole.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise self.damaged(key)
        self.items: list[dict[str, Any]] = listed

    def damaged(self, what: str) -> NotReadable:
        return NotReadable(f"{self.path}: invalid value: {what}", hint="make the lock file anew")

    def wanted(self, item: Mapping[str, Any], files: Iterator[LockedFile], markers: object) -> Wanted:
        from packaging.utils import canonicalize_name

        name, version = item.get("name"), item.get("version")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(version, str):
            raise self.damaged(f"name {name!r}, version {version!r}")
        return Wanted(
            project=canonicalize_name(name),
            version=version,
            files=tuple(sorted(files, key=lambda file: file.name)),
            markers=tuple(text for text in _listed(markers) if isinstance(text, str)),
        )

    def file(self, entry: object) -> LockedFile:
        """A file's name (of its own, or the end of its address or path), its hash, its size."""
        if not isinstance(entry, dict):
            raise self.damaged(f"file {entry!r}")
        place = next((entry[key] for key in ("name", "filename", "file", "url", "path") if entry.get(key)), None)
        if not isinstance(place, str):
            raise self.damaged(f"file {entry!r}")
        name = unquote(place.partition("#")[0].partition("?")[0]).rpartition("/")[2]
        if not _NAME.fullmatch(name.replace("+", "-").replace("!", "-")):
            raise self.damaged(f"file {place!r}")
        size = entry.get("size")
        return LockedFile(
            name=name, sha256=_sha256(entry), size=size if type(size) is int and 0 <= size < 1 << 63 else None
        )


def _sha256(entry: Mapping[str, Any]) -> str:
    hashes = entry.get("hashes")
    told = hashes.get("sha256") if isinstance(hashes, dict) else entry.get("hash")
    found = told.removeprefix("sha256:") if isinstance(told, str) else ""
    return found if _SHA256.fullmatch(found) else ""


def _listed(value: object) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _uv(text: str, path: str) -> list[Wanted]:
    entries = _Entries(text, path, "package")
    return [
        entries.wanted(item, map(entries.file, _releases(item)), item.get("resolution-markers"))
        for item in entries.items
        if isinstance(item.get("source"), dict) and "registry" in item["source"]
    ]


def _pylock(text: str, path: str) -> list[Wanted]:
    entries = _Entries(text, path, "packages")
    elsewhere = ("vcs", "directory", "archive")
    return [
        entries.wanted(item, map(entries.file, _releases(item)), item.get("marker"))
        for item in entries.items
        if not any(key in item for key in elsewhere) and "version" in item
    ]


def _releases(item: Mapping[str, Any]) -> list[Any]:
    return [*_listed(item.get("sdist")), *_listed(item.get("wheels"))]


def _poetry(text: str, path: str) -> list[Wanted]:
    entries = _Entries(text, path, "package")
    found = []
    for item in entries.items:
        source = item.get("source")
        if isinstance(source, dict) and source.get("type") not in (None, "legacy"):
            continue
        markers = item.get("markers")
        # By group: `{main = "…", dev = "…"}`; a group that is not named has no marker.
        if isinstance(markers, dict):
            groups = set(map(str, _listed(item.get("groups"))))
            markers = list(markers.values()) if groups <= markers.keys() else None
        found.append(entries.wanted(item, map(entries.file, _listed(item.get("files"))), markers))
    return found


def _pdm(text: str, path: str) -> list[Wanted]:
    entries = _Entries(text, path, "package")
    elsewhere = ("git", "url", "path")
    return [
        entries.wanted(item, map(entries.file, _listed(item.get("files"))), item.get("marker"))
        for item in entries.items
        if not any(key in item for key in elsewhere)
    ]


FORMATS: Mapping[str, Callable[[str, str], list[Wanted]]] = {
    "uv": _uv,
    "pylock": _pylock,
    "poetry": _poetry,
    "pdm": _pdm,
}
"""The reader of each format; arguments: the text, and the path for messages."""
