"""devpi-server 7: the code that deployer uses, and the code that it replaces. :mod:`version6` has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from devpi_server.markers import Deleted
from devpi_server.model.base import BaseIndex
from devpi_server.model.config import ensure_list
from devpi_server.model.exceptions import InvalidIndexconfig
from devpi_server.model.inheritance import IndexBases, TraversalInfos, TraversedIndex
from devpi_server.model.remote import ProjectNamesCache, ProjectUpdateCache, url_without_auth
from devpi_server.model.remote import RemoteIndex as MirrorStage
from devpi_server.normalized import normalize_name

__all__ = ["InvalidIndexconfig", "MirrorStage", "ProjectNamesCache", "ProjectUpdateCache", "ensure_list"]

AUTHORIZATION = "remote_url_authorization_header"
OF_PAGES = ("USER", "INDEX", "PROJECT", "SIMPLEDATA", "VERSION")
FILE = "FILE"
_MARK = "deployer_narrowed"
_FILES = frozenset({FILE, "FILE_NOHASH"})
_OF_ONE_PROJECT = frozenset(
    {
        *("PROJECT", "REMOTEPROJECTINFO", "REMOTEFILE", "SIMPLEDATA", "VERSION", "VERSIONMETADATA"),
        *("DOCZIP", "TOXRESULT", "VERSIONFILE"),
    }
)
_OF_NO_PAGE = frozenset({"DIGESTULIDS", "REMOTENAMESINIT"})

Refused = Callable[[Any, str], frozenset[str]]
Listed = Callable[[Any, Iterable[tuple[Any, Any]]], Iterable[tuple[Any, Any]]]


def address(mirror: Any) -> str:
    return str(url_without_auth(mirror.remote_url).url)


def served(mirror: Any) -> Iterable[str]:
    return [str(key.name) for key in mirror.key_project.with_resolved_parent().iter_ulidkeys()]


def has_served(mirror: Any, project: str) -> bool:
    return bool(mirror.key_project(project).exists(resolve_parents=True))


def origin(link: Any) -> str:
    return f"{link.user}/{link.index}"


def configured(user: Any) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = user.get_indexes()
    return found


def is_mirror(stage: Any) -> bool:
    return bool(stage.index_type == "remote")


# The changelog


def key_of(event: Any) -> Any:
    return event.data.key


def raw(connection: Any, serial: int) -> bytes:
    # The identifiers of keys are random, so no other history has the same.
    changes = (change.key for change in _at(connection, serial))
    return "\n".join(sorted(f"{key.key_name} {key.ulid}" for key in changes)).encode()


def _at(connection: Any, serial: int) -> Iterable[Any]:
    return connection.iter_changes_at(serial) if serial >= 0 else ()


def touched(keyfs: Any, connection: Any, serial: int, *, offline: bool) -> Iterator[str | None]:
    for change in _at(connection, serial):
        key = change.key
        if key.key_name in _OF_ONE_PROJECT:
            yield str(normalize_name(key.params["project"]))
        elif key.key_name in _FILES:
            if offline:
                entry = _entry(connection, change)
                yield str(normalize_name(entry["project"])) if entry.get("project") else None
        elif key.key_name not in _OF_NO_PAGE:
            yield None


def _entry(connection: Any, change: Any) -> Mapping[str, Any]:
    if not isinstance(change.value, Deleted):
        return change.value or {}
    try:
        before = connection.get_key_at_serial(change.key, change.back_serial).value
    except KeyError:
        return {}
    return {} if isinstance(before, Deleted) else before or {}


# The walk over bases


def narrow(refused: Refused, listed: Listed) -> None:
    """Replace devpi's walks over the bases of an index: one method for all of its views but two, and those two."""
    decide, has, list_all = IndexBases._get_project_inheritance_info, BaseIndex.has_project, BaseIndex.list_projects

    def narrowed(bases: Any, project: Any) -> Any:
        out = refused(bases.index, project)
        return _without(bases, out) if out else bases

    def _get_project_inheritance_info(self: Any, project: Any) -> Any:
        return decide(self if hasattr(self, _MARK) else narrowed(self, project), project)

    def has_project(self: Any, project: Any) -> Any:
        bases = narrowed(self.index_bases, project)
        return has(self if bases is self.index_bases else _Seen(self, bases), project)

    def list_projects(self: Any) -> list[tuple[Any, Any]]:
        return list(listed(self, list_all(self)))

    IndexBases._get_project_inheritance_info = _get_project_inheritance_info
    for replacement in (has_project, list_projects):
        setattr(BaseIndex, replacement.__name__, replacement)


class _Seen:
    """An index as devpi's own methods see it, with other bases."""

    def __init__(self, index: Any, bases: Any) -> None:
        self._index = index
        self.index_bases = bases

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def _without(bases: Any, refused: frozenset[str]) -> Any:
    found = bases.traversal_infos
    steps = [step for step in found.steps if not (isinstance(step, TraversedIndex) and step.index.name in refused)]
    made = IndexBases(bases.index, devpiserver_sro_skip=bases.devpiserver_sro_skip, model=bases.model)
    made.traversal_infos = TraversalInfos(paths=found.paths, steps=steps)
    setattr(made, _MARK, True)
    return made
