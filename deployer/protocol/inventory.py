"""The inventory of what is cached and uploaded, and pruning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypedDict

from deployer.protocol.values import flag_of, is_index_name, is_project_name, number_of, text_of


class Kind(StrEnum):
    """What the inventory has. ``FILE``: a file of a mirror. ``PAGE``: a page of an upstream. ``COMPANION``: what stands
    beside a file (:data:`COMPANIONS`)."""

    FILE = "file"
    UPLOAD = "upload"
    PAGE = "page"
    COMPANION = "companion"


@dataclass(frozen=True, kw_only=True)
class InventoryRequest:
    """``POST /+deployer/inventory``: what is listed, and the client's proof.

    ``index``: of this index alone. ``search``: a part of the project's name. ``project``: the files of this project,
    by its normalised name; empty: all projects. ``after``: the last row of the answer before, ``user/index project``.
    """

    index: str = ""
    search: str = ""
    project: str = ""
    after: str = ""
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return " ".join(("inventory", self.index, self.search, self.project, self.after))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> InventoryRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        names = ("index", "search", "project", "after", "proof")
        if not isinstance(body, dict):
            return None
        words = {name: text_of(body.get(name, "")) for name in names}
        if not all(word is not None and len(word) < 600 and word.isascii() for word in words.values()):
            return None
        index, project = words["index"] or "", words["project"] or ""
        if (index and not is_index_name(index)) or (project and not is_project_name(project)):
            return None
        return cls(**{name: word or "" for name, word in words.items()})


class ProjectItem(TypedDict):
    """A project of an index. ``versions``, ``files``: of files that are stored; ``uploads``: of these, uploaded ones.

    ``bytes``: on the disk, with pages and companions. ``first``, ``last``: when the first of it came, and when any of
    it was used last (ISO 8601). ``uses``: requests for its files. ``origin``: the upstream; empty of uploads.
    """

    index: str
    project: str
    versions: int
    files: int
    uploads: int
    bytes: int
    first: str
    last: str
    uses: int
    origin: str


class FileItem(TypedDict):
    """A file of a project, or its page (``kind``). ``path``: below the index. ``bytes``: on the disk; ``size``: of the
    file."""

    index: str
    project: str
    version: str
    kind: str
    path: str
    size: int
    bytes: int
    first: str
    last: str
    uses: int
    origin: str


class KindTotal(TypedDict):
    number: int
    bytes: int


class InventoryAnswer(TypedDict):
    """``POST /+deployer/inventory``. ``projects``: unless one project was named, of which ``files`` are listed.

    ``totals``: of all that is here, by kind. ``after``: where the next answer begins; empty at the end.
    """

    projects: list[ProjectItem]
    files: list[FileItem]
    totals: dict[str, KindTotal]
    after: str


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """``POST /+deployer/prune``: what is removed from the cache, and the client's proof.

    ``before``: what was used last before this time (seconds since the epoch); None: whenever it was used. ``to_bytes``:
    only until the cache has so many bytes left, the least recently used first; None: all of it. ``index``,
    ``project``: of these alone. ``dry``: remove nothing.
    """

    before: int | None = None
    to_bytes: int | None = None
    index: str = ""
    project: str = ""
    dry: bool = False
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        words = (self.before, self.to_bytes, self.index, self.project, self.dry)
        return " ".join(("prune", *map(str, words)))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> PruneRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, project, proof = (text_of(body.get(name, "")) for name in ("index", "project", "proof"))
        before, most, dry = body.get("before"), body.get("to_bytes"), flag_of(body.get("dry", False))
        numbers = [number for number in (before, most) if number is not None]
        if any((number_of(number) or 0) < 0 or number_of(number) is None for number in numbers):
            return None
        if index is None or project is None or proof is None or dry is None or not proof.isascii():
            return None
        if (index and not is_index_name(index)) or (project and not is_project_name(project)):
            return None
        return cls(before=before, to_bytes=most, index=index, project=project, dry=dry, proof=proof)


class Pruned(TypedDict):
    """``POST /+deployer/prune``. ``removed``: by kind. ``projects``: bytes by ``user/index/project``.

    ``linked_bytes``: of what was removed, bytes that the disk keeps, because backups have them, too. ``spared``: number
    of files by reason, ``warm`` or ``unlisted`` (their upstream does not list them now), and of pages with ``files`` or
    ``rules``. ``cache_bytes``: what is cached now. ``left``: there was no time for all of it in this request.
    """

    removed: dict[str, KindTotal]
    projects: dict[str, int]
    linked_bytes: int
    spared: dict[str, int]
    cache_bytes: int
    left: bool
