"""What is in a bundle, or on a server: which index has which file. Pure.

The manifest that travels back from the other side is one without ``blobs``: it names the files that are there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from deployer.errors import VerificationError
from deployer.protocol import COMPANIONS, is_index_name, is_project_name, is_sha256, parsed
from deployer.typed import built

SCHEMA = 1
NAME = "bundle.json"
LARGEST = 512 << 20
"""Bytes of the largest manifest that is read."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of an index.

    ``file``: of a mirror, the file object of its page (PEP 691); of a stage, empty. ``companions``: the SHA-256 of what
    stands beside it, by suffix.
    """

    index: str
    project: str
    filename: str
    sha256: str
    size: int
    file: dict[str, Any] = field(default_factory=dict)
    companions: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What is unique on a server."""
        return self.index, self.filename

    @property
    def blobs(self) -> tuple[str, ...]:
        return self.sha256, *self.companions.values()


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index with files. ``mirror``: the URL of its upstream; empty for an index with uploads.

    ``pages``: of a mirror, the fields of each project's page.
    """

    mirror: str = ""
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServerImage:
    """The server's image. ``build``: checksum of what our own image was built from; empty for another."""

    ref: str
    id: str
    build: str = ""

    def same(self, other: ServerImage | None) -> bool:
        """Whether ``other`` need not be replaced by this one."""
        return other is not None and self.ref == other.ref and (self.id == other.id or self.build == other.build != "")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``created``: ISO 8601. ``delta``: files that the other side had are left out. ``image``: the server's, if it runs
    in a container; of a bundle, None without ``image.tar``. ``wheels``: their names."""

    schema: int
    created: str
    deployer: str
    delta: bool = False
    image: ServerImage | None = None
    wheels: tuple[str, ...] = ()
    indexes: dict[str, Index] = field(default_factory=dict)
    files: tuple[File, ...] = ()

    @property
    def blobs(self) -> tuple[str, ...]:
        """The blobs of all files, each once, in the order in which they are written."""
        return tuple(dict.fromkeys(blob for file in self.files for blob in file.blobs))

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, content: bytes, *, what: str) -> Manifest:
        """Read a manifest that is not trusted. ``what``: its name in messages. Raises VerificationError."""
        try:
            record = parsed(content)
            if isinstance(record, dict) and type(record.get("schema")) is int and record["schema"] > SCHEMA:
                raise VerificationError(f"{what} was written by a newer deployer", hint="upgrade deployer")
            found = built(cls, record)
            _check(found)
        except (ValueError, UnicodeError) as error:
            raise VerificationError(
                f"{what} is no valid manifest: {error}", hint="create the bundle again: deployer bundle create"
            ) from None
        return found


def _check(manifest: Manifest) -> None:
    """Raises ValueError for what no server says."""
    for name, index in manifest.indexes.items():
        if not is_index_name(name):
            raise ValueError(f"invalid index {name[:80]!r}")
        if not all(map(is_project_name, index.pages)):
            raise ValueError(f"invalid project of {name}")
    if not all(map(_is_plain, manifest.wheels)):
        raise ValueError("invalid name of a wheel")
    for file in manifest.files:
        beside = file.companions
        if file.index not in manifest.indexes or not is_project_name(file.project) or not _is_plain(file.filename):
            raise ValueError(f"invalid file {file.filename[:80]!r}")
        if file.size <= 0 or not all(map(is_sha256, file.blobs)) or not set(beside) <= set(COMPANIONS):
            raise ValueError(f"invalid checksum or size of {file.filename}")
        if file.file and file.file.get("filename") != file.filename:
            raise ValueError(f"{file.filename} has another name on its page")
    twice = [key for key, count in Counter(file.key for file in manifest.files).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0][0]} has {twice[0][1]} twice")


def _is_plain(name: str) -> bool:
    """Whether this is the name of a file in one directory, and not hidden."""
    return 0 < len(name) < 256 and name.isprintable() and "/" not in name and "\\" not in name and name[0] not in ".-"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A bundle compared with a server. ``conflicts``: lines."""

    new: tuple[File, ...] = ()
    same: tuple[File, ...] = ()
    conflicts: tuple[str, ...] = ()


def compare(bundle: Manifest, here: Manifest) -> Comparison:
    """What loading ``bundle`` would add to a server that has ``here``, and what stands against it."""
    known = {file.key: file.sha256 for file in here.files}
    new, same = [], []
    conflicts = [line for name, index in bundle.indexes.items() if (line := against(name, index, here.indexes))]
    for file in bundle.files:
        there = known.get(file.key)
        if there is None:
            new.append(file)
        elif there == file.sha256:
            same.append(file)
        else:
            conflicts.append(f"{file.index}: {file.filename} is another file here (SHA-256 {there[:12]}…)")
    return Comparison(new=tuple(new), same=tuple(same), conflicts=tuple(conflicts))


def against(name: str, index: Index, here: Mapping[str, Index]) -> str:
    """Why the server ``here`` can't take files of this index; empty if it can."""
    found = here.get(name)
    if found is None:
        return f"there is no index {name} here"
    if bool(found.mirror) != bool(index.mirror):
        kind = "a mirror" if found.mirror else "no mirror"
        return f"{name} is {kind} here"
    if found.mirror.rstrip("/") != index.mirror.rstrip("/"):
        return f"{name} mirrors {found.mirror} here, {index.mirror} in the bundle"
    return ""


def without(manifest: Manifest, there: Manifest) -> Manifest:
    """The delta: ``manifest`` without the files, the image and the wheels that the other side has."""
    known = {(file.key, file.sha256) for file in there.files}
    files = tuple(file for file in manifest.files if (file.key, file.sha256) not in known)
    image = None if manifest.image is None or manifest.image.same(there.image) else manifest.image
    wheels = () if manifest.deployer == there.deployer else manifest.wheels
    return only(replace(manifest, delta=True, image=image, wheels=wheels), files)


def only(manifest: Manifest, files: Iterable[File]) -> Manifest:
    """``manifest`` with these of its files, and the indexes and pages that they need."""
    kept = tuple(files)
    projects: dict[str, set[str]] = {}
    for file in kept:
        projects.setdefault(file.index, set()).add(file.project)
    indexes = {
        name: replace(index, pages={project: index.pages[project] for project in index.pages if project in names})
        for name, index in manifest.indexes.items()
        if (names := projects.get(name))
    }
    return replace(manifest, indexes=indexes, files=kept)


def named(manifest: Manifest, indexes: Collection[str]) -> Manifest:
    """``manifest`` with the files of these indexes alone."""
    return only(manifest, (file for file in manifest.files if file.index in indexes))


def travelling(manifest: Manifest) -> Manifest:
    """``manifest`` without what only a bundle needs: the small one that travels back."""
    files = tuple(replace(file, file={}, companions={}) for file in manifest.files)
    indexes = {name: replace(index, pages={}) for name, index in manifest.indexes.items()}
    return replace(manifest, indexes=indexes, files=files)


def total(files: Sequence[File]) -> int:
    """Bytes of the files, each content once."""
    return sum({file.sha256: file.size for file in files}.values())
