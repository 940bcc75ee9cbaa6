"""Which indexes there are, and which projects they have here: uploads, and pages that somebody asked an upstream for.

The list of a public index is never asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from deployer.server.devpi import ordered
from deployer.server.devpi.installed import inside, installed

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

MOST_SUGGESTED = 5


@dataclass(frozen=True)
class Index:
    """One index as configured. ``upstream``: of a mirror, without credentials. ``names``: its projects that are here,
    by normalised name, sorted. ``reads``: itself, and all that it inherits from, in devpi's order."""

    name: str
    kind: str  # mirror, ordered, or stage
    bases: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    title: str = ""
    uploaders: tuple[str, ...] = ()
    upstream: str = ""
    owns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def is_mirror(self) -> bool:
        return self.kind == "mirror"

    @property
    def words(self) -> str:
        """What it is, in one line."""
        if self.is_mirror:
            return f"mirror of {self.upstream}"
        if self.kind == ordered.TYPE:
            return "uploads first, then its bases in order"
        return "uploads, merged with its bases" if self.bases else "uploads"


@dataclass(frozen=True)
class Found:
    """A project, and the indexes that have it here."""

    name: str
    indexes: tuple[str, ...]


@dataclass(frozen=True)
class Catalog:
    """All indexes by name, sorted."""

    indexes: Mapping[str, Index]

    def of(self, name: str) -> Index | None:
        return self.indexes.get(name)

    def projects(self, index: str = "") -> Sequence[Found]:
        """The projects that an index reads and that are here, or those of all indexes; sorted."""
        one = self.indexes.get(index)
        names = one.reads if one is not None else tuple(self.indexes)
        found: dict[str, list[str]] = {}
        for name in names:
            for project in self.indexes[name].names if name in self.indexes else ():
                found.setdefault(project, []).append(name)
        return [Found(project, tuple(found[project])) for project in sorted(found)]

    @property
    def uploads(self) -> int:
        return len({name for index in self.indexes.values() if not index.is_mirror for name in index.names})

    @property
    def mirrored(self) -> int:
        return len({name for index in self.indexes.values() if index.is_mirror for name in index.names})

    @property
    def preferred(self) -> Index | None:
        """The index that a newcomer should install from: one that no other builds on, and that reads most."""
        below = {base for index in self.indexes.values() for base in index.bases}
        tops = [index for index in self.indexes.values() if index.name not in below] or list(self.indexes.values())
        return max(tops, key=lambda index: (len(index.reads), index.kind == ordered.TYPE), default=None)

    def through(self, found: Found) -> str:
        """The index whose page of a project is linked to: the preferred one if it reads the project."""
        preferred = self.preferred
        if preferred is not None and any(name in preferred.reads for name in found.indexes):
            return preferred.name
        return found.indexes[0]

    def search(self, text: str, index: str = "") -> Sequence[Found]:
        """Projects with ``text`` (normalised) in their name: the same name first, then those that begin with it."""
        matching = [found for found in self.projects(index) if text in found.name]
        return sorted(matching, key=lambda found: (found.name != text, not found.name.startswith(text), found.name))

    def like(self, text: str, index: str = "") -> Sequence[Found]:
        """Projects whose names resemble ``text``, the most alike first."""
        by_name = {found.name: found for found in self.projects(index)}
        return [by_name[name] for name in get_close_matches(text, by_name, n=MOST_SUGGESTED, cutoff=0.75)]


def read(xom: Any, known: Mapping[str, str], names_of: Any) -> Catalog:
    """Read all indexes in one short transaction. ``known``: the upstream's address of each mirror, without credentials;
    ``names_of``: the projects of which a mirror has a page."""
    configured: dict[str, Mapping[str, Any]] = {}
    uploads: dict[str, Sequence[str]] = {}
    with xom.keyfs.read_transaction():
        for user in xom.model.get_userlist():
            for index, config in inside().configured(user).items():
                name = f"{user.name}/{index}"
                configured[name] = config
                if name not in known:
                    stage = xom.model.getstage(name)
                    uploads[name] = sorted(str(one) for one in stage.list_projects_perstage()) if stage else []
    return made(configured, known, {**uploads, **{name: names_of(name) for name in known}})


def visible(web: Web, hidden: frozenset[str]) -> Catalog:
    """All indexes but the ``hidden`` ones."""
    mirrors = web.indexes.all(configured=web.store.configured)
    known = read(web.xom, {name: mirror.url for name, mirror in mirrors.items()}, web.source.names)
    return Catalog({name: index for name, index in known.indexes.items() if name not in hidden})


def made(
    configured: Mapping[str, Mapping[str, Any]], upstreams: Mapping[str, str], names: Mapping[str, Iterable[str]]
) -> Catalog:
    """The catalog of indexes as devpi stores them."""
    bases = {name: tuple(config.get("bases") or ()) for name, config in configured.items()}
    return Catalog(
        {
            name: Index(
                name,
                _kind(config, name in upstreams),
                bases=bases[name],
                reads=_reads(name, bases),
                title=str(config.get("title") or ""),
                uploaders=tuple(config.get("acl_upload") or ()),
                upstream=upstreams.get(name, ""),
                owns=tuple(config.get("owns") or ()),
                names=tuple(names.get(name, ())),
            )
            for name, config in sorted(configured.items())
        }
    )


def _kind(config: Mapping[str, Any], is_mirror: bool) -> str:
    if is_mirror:
        return "mirror"
    kind = str(config.get("type"))
    return "stage" if kind == installed().stage else kind


def _reads(index: str, bases: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Itself and what it inherits from, level by level."""
    found, todo = [index], [index]
    while todo:
        for base in bases.get(todo.pop(0), ()):
            if base not in found and base in bases:
                found.append(base)
                todo.append(base)
    return tuple(found)
