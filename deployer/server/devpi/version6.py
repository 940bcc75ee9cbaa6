"""devpi-server 6: the code that deployer uses, and the code that it replaces. :mod:`version7` has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from devpi_server.mirror import MirrorStage, ProjectNamesCache, ProjectUpdateCache
from devpi_server.model import BaseStage, InvalidIndexconfig, ensure_list
from devpi_server.normalized import normalize_name

__all__ = ["InvalidIndexconfig", "MirrorStage", "ProjectNamesCache", "ProjectUpdateCache", "ensure_list"]

AUTHORIZATION = "mirror_url_authorization_header"
"""The property of a mirror with the Authorization header that it sends."""
OF_PAGES = ("USER", "PROJSIMPLELINKS", "PROJVERSION", "PROJNAMES")
"""Kinds of keys whose changes are reported while no request runs, because pages depend on them."""
FILE = "STAGEFILE"
"""Kind of key of a file with a hash."""
_OF_ONE_PROJECT = frozenset({"PROJSIMPLELINKS", "PROJVERSIONS", "PROJVERSION"})
_FILES = frozenset({FILE, "PYPIFILE_NOMD5"})
_OF_NO_PAGE = frozenset({"MIRRORNAMESINIT", "USERLIST"})
_WALKS = ("op_sro", "op_sro_check_mirror_whitelist", "get_mirror_whitelist_info")
"""devpi's methods that walk over the bases of an index; each calls :meth:`BaseStage.sro`."""

Refused = Callable[[Any, str], frozenset[str]]
Listed = Callable[[Any, Iterable[tuple[Any, Any]]], Iterable[tuple[Any, Any]]]


def address(mirror: Any) -> str:
    """The URL of a mirror's upstream, without credentials."""
    return str(mirror.mirror_url_without_auth.url)


def served(mirror: Any) -> Iterable[str]:
    """Projects of which a mirror has served a page."""
    found: Iterable[str] = mirror.key_projects.get()
    return found


def has_served(mirror: Any, project: str) -> bool:
    return project in mirror.key_projects.get()


def origin(link: Any) -> str:
    """The index (``user/name``) that holds the file of a link: the file's path begins with it."""
    return "/".join(str(link.path).split("/")[:2])


def configured(user: Any) -> Mapping[str, Mapping[str, Any]]:
    """The indexes of a user, as stored."""
    return user.key.get().get("indexes") or {}


def is_mirror(stage: Any) -> bool:
    return bool(stage.ixconfig["type"] == "mirror")


# The changelog


def key_of(event: Any) -> Any:
    """The key of a change event."""
    return event.typedkey


def raw(connection: Any, serial: int) -> bytes:
    """One entry of the changelog; empty when there is none."""
    return connection.get_raw_changelog_entry(serial) or b""


def touched(keyfs: Any, connection: Any, serial: int, *, offline: bool) -> Iterator[str | None]:
    """The projects (normalised names) whose pages a commit may have changed; None stands for all pages.

    A kind of key that is not known here may belong to any page.
    """
    for relpath, (keyname, back_serial, value) in connection.get_changes(serial).items():
        if keyname in _OF_ONE_PROJECT:
            yield normalize_name(_parameters(keyfs, keyname, relpath)["project"])
        elif keyname == "PROJNAMES":
            if not _is_mirror(keyfs, connection, relpath):
                before = _value(connection, relpath, back_serial)
                yield from (normalize_name(name) for name in set(value or ()) ^ set(before or ()))
        elif keyname in _FILES:
            if offline:  # only then does a mirror's page depend on which of its files are here
                entry = value or _value(connection, relpath, back_serial) or {}
                yield normalize_name(entry["project"]) if entry.get("project") else None
        elif keyname not in _OF_NO_PAGE:
            yield None


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
    """Whether a list of names is a mirror's. It grows with each fetched page, which has a key of its own."""
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
    """An index as devpi's own methods see it, with those of its bases that may serve the project."""

    def __init__(self, stage: Any, stages: list[Any]) -> None:
        self._stage = stage
        self._stages = stages

    def sro(self) -> Iterator[Any]:
        return iter(self._stages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


def narrow(refused: Refused, listed: Listed) -> None:
    """Replace devpi's walks over the bases of an index.

    ``refused``: the indexes that must not serve a project through an index. ``listed``: the names that remain of the
    names of all bases.
    """
    walk, checked, whitelist = (getattr(BaseStage, name) for name in _WALKS)

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
        return whitelist(narrowed(self, project), project)

    for replacement in (op_sro, op_sro_check_mirror_whitelist, get_mirror_whitelist_info):
        setattr(BaseStage, replacement.__name__, replacement)
