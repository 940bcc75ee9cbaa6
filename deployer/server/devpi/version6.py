"""devpi-server 6 from inside: what is used of its code, and what is replaced in it. As :mod:`devpi7` has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from devpi_server.mirror import MirrorStage, ProjectNamesCache, ProjectUpdateCache
from devpi_server.model import BaseStage, InvalidIndexconfig, ensure_list
from devpi_server.normalized import normalize_name

from deployer.server.refusal import unfit

__all__ = ["InvalidIndexconfig", "MirrorStage", "ProjectNamesCache", "ProjectUpdateCache", "ensure_list"]

AUTHORIZATION = "mirror_url_authorization_header"
"""The property of a mirror that says what it sends."""
OF_PAGES = ("USER", "PROJSIMPLELINKS", "PROJVERSION", "PROJNAMES")
"""Kinds of keys on which pages depend."""
FILE = "STAGEFILE"
"""The kind of key of a file that has a hash."""
_OF_ONE_PROJECT = ("PROJSIMPLELINKS", "PROJVERSIONS", "PROJVERSION")
_WALKS = ("op_sro", "op_sro_check_mirror_whitelist", "get_mirror_whitelist_info")
"""devpi's methods that go over the bases of an index, each by :meth:`BaseStage.sro`."""

Refused = Callable[[Any, str], frozenset[str]]
Listed = Callable[[Any, Iterable[tuple[Any, Any]]], Iterable[tuple[Any, Any]]]


def address(mirror: Any) -> str:
    """A mirror's upstream, without credentials."""
    return str(mirror.mirror_url_without_auth.url)


def served(mirror: Any) -> Iterable[str]:
    """Projects of which a mirror has served something."""
    found: Iterable[str] = mirror.key_projects.get()
    return found


def has_served(mirror: Any, project: str) -> bool:
    return project in mirror.key_projects.get()


def origin(link: Any) -> str:
    """The index that a link of a page is from: the path of a file begins with it."""
    return "/".join(str(link.path).split("/")[:2])


def configured(user: Any) -> Mapping[str, Mapping[str, Any]]:
    """The indexes of a user, as stored."""
    return user.key.get().get("indexes") or {}


def is_mirror(stage: Any) -> bool:
    return bool(stage.ixconfig["type"] == "mirror")


# What a commit has changed


def key_of(event: Any) -> Any:
    """The key that the notifier tells of."""
    return event.typedkey


def raw(connection: Any, serial: int) -> bytes:
    """One entry of the changelog; empty when there is none."""
    return connection.get_raw_changelog_entry(serial) or b""


def touched(keyfs: Any, connection: Any, serial: int, *, offline: bool) -> Iterator[str | None]:
    """The projects (normalised) whose pages a commit may have changed; None stands for all pages."""
    for relpath, (keyname, back_serial, value) in connection.get_changes(serial).items():
        if keyname == "USER":
            yield None
        elif keyname in _OF_ONE_PROJECT:
            yield normalize_name(_parameters(keyfs, keyname, relpath)["project"])
        elif keyname == "PROJNAMES" and not _is_mirror(keyfs, connection, relpath):
            before = _value(connection, relpath, back_serial)
            yield from (normalize_name(name) for name in set(value or ()) ^ set(before or ()))
        elif keyname in ("STAGEFILE", "PYPIFILE_NOMD5") and offline:
            # Only offline does a mirror's page depend on which of its files are here.
            entry = value or _value(connection, relpath, back_serial) or {}
            yield normalize_name(entry["project"]) if entry.get("project") else None


def _parameters(keyfs: Any, keyname: str, relpath: str) -> dict[str, str]:
    return dict(keyfs.get_key(keyname).extract_params(relpath))


def _value(connection: Any, relpath: str, serial: int) -> Any:
    if serial < 0:
        return None
    try:
        return connection.get_relpath_at(relpath, serial)[2]
    except KeyError:
        return None


def _is_mirror(keyfs: Any, connection: Any, relpath: str) -> bool:
    """A mirror's list of names grows with each page that is fetched, and the page's own key tells that."""
    of = _parameters(keyfs, "PROJNAMES", relpath)
    user = keyfs.USER(user=of["user"])
    try:
        value = connection.get_relpath_at(user.relpath, connection.db_read_last_changelog_serial())[2]
    except KeyError:
        return False
    index = ((value or {}).get("indexes") or {}).get(of["index"]) or {}
    return bool(index.get("type") == "mirror")


# The walk over bases


class _Narrowed:
    """An index as devpi's own methods see it, with those of its bases that may serve what they ask for."""

    def __init__(self, stage: Any, stages: list[Any]) -> None:
        self._stage = stage
        self._stages = stages

    def sro(self) -> Iterator[Any]:
        return iter(self._stages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


def narrow(refused: Refused, listed: Listed) -> None:
    """Have devpi leave out those of an index and all that it inherits from that ``refused`` names for a project; and of
    the names of all projects those that ``listed`` leaves out. Raises Refusal when that can't be had."""
    if not all(callable(getattr(BaseStage, name, None)) for name in (*_WALKS, "sro")):
        raise unfit("goes over bases in another way than ordered indexes are made for")
    if BaseStage.op_sro.__module__ == __name__:
        return
    walk, checked, told = (getattr(BaseStage, name) for name in _WALKS)

    def narrowed(stage: Any, project: str) -> Any:
        out = refused(stage, project)
        return _Narrowed(stage, [one for one in stage.sro() if one.name not in out]) if out else stage

    def op_sro(self: Any, opname: str, **kw: Any) -> Iterator[tuple[Any, Any]]:
        if "project" in kw:
            return iter(walk(narrowed(self, kw["project"]), opname, **kw))
        found = walk(self, opname, **kw)
        return iter(listed(self, found) if opname == "list_projects_perstage" else found)

    def op_sro_check_mirror_whitelist(self: Any, opname: str, **kw: Any) -> Iterator[tuple[Any, Any]]:
        return iter(checked(narrowed(self, kw["project"]), opname, **kw))

    def get_mirror_whitelist_info(self: Any, project: str) -> Any:
        return told(narrowed(self, project), project)

    for replacement in (op_sro, op_sro_check_mirror_whitelist, get_mirror_whitelist_info):
        setattr(BaseStage, replacement.__name__, replacement)
