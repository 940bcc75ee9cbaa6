"""devpi-server 6: the code that deployer uses, and the code that it replaces. :mod:`version7` has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from devpi_common.url import URL
from devpi_server.filestore import Digests
from devpi_server.mirror import MirrorCustomizer, MirrorStage, ProjectUpdateCache
from devpi_server.model import BaseStage, InvalidIndexconfig, PrivateStage, User, ensure_list
from devpi_server.normalized import normalize_name

from deployer.server.devpi.kept import KeptFile, restored
from deployer.server.devpi.links import digest, place
from deployer.server.devpi.mirror_names import NAMES

__all__ = ["InvalidIndexconfig", "MirrorStage", "ProjectUpdateCache", "ensure_list"]

LOCAL_INDEX, USER = PrivateStage, User
AUTHORIZATION = "mirror_url_authorization_header"
"""The property of a mirror with the Authorization header that it sends."""
_LINKS = "PROJSIMPLELINKS"
"""Kind of key of the links of a mirror's project."""
OF_PAGES = ("USER", _LINKS, "PROJVERSION", "PROJNAMES")
"""Kinds of keys whose changes are reported while no request runs, because pages depend on them."""
FILE = "STAGEFILE"
"""Kind of key of a file with a hash."""
_OF_ONE_PROJECT = frozenset({_LINKS, "PROJVERSIONS", "PROJVERSION"})
FILES = frozenset({FILE, "PYPIFILE_NOMD5"})
"""Kinds of keys of files."""
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
    return bool(mirror.is_project_cached(project))


def unlisted(xom: Any) -> dict[str, set[str]]:
    """Projects of mirrors, by index, of which links are stored and that devpi's list of names lacks."""
    stored: dict[str, set[str]] = {}
    with xom.keyfs.read_transaction() as transaction:
        for (relpath,) in transaction.conn.fetchall("select key from kv where keyname = ?", (_LINKS,)):
            of = _parameters(xom.keyfs, _LINKS, relpath)
            stored.setdefault(f"{of['user']}/{of['index']}", set()).add(of["project"])
        stages = {index: xom.model.getstage(index) for index in stored}
        found = {
            index: {name for name in stored[index] - set(served(stage)) if stage.is_project_cached(name)}
            for index, stage in stages.items()
            if stage is not None and is_mirror(stage)
        }
    return {index: names for index, names in found.items() if names}


def add_names(xom: Any, names: Mapping[str, Iterable[str]]) -> int:
    """Add projects to the lists of names of mirrors, by index, in one commit; the length of the longest list."""
    most = 0
    with xom.keyfs.write_transaction():
        for index, added in names.items():
            stage = xom.model.getstage(index)
            if stage is not None and is_mirror(stage):
                projects = stage.key_projects.get_mutable()
                new = {name for name in set(added) - projects if stage.is_project_cached(name)}
                if new:
                    stage.key_projects.set(projects | new)
                most = max(most, len(projects) + len(new))
    return most


def origin(link: Any) -> str:
    """The index (``user/name``) that holds the file of a link: the file's path begins with it."""
    return "/".join(str(link.path).split("/")[:2])


def link_place(link: Any) -> str:
    """The path of a link's file below its index: ``+f/…`` or ``+e/…``."""
    return str(link.path).split("/", 2)[2]


def entry_place(entry: Any) -> tuple[str, str]:
    """The index of a file entry, and its path below it."""
    user, index, path = str(entry.relpath).split("/", 2)
    return f"{user}/{index}", path


def add_fields(keys: tuple[str, ...], normalized: Callable[[str, Any], Any]) -> None:
    """Add attributes to mirrors. ``normalized``: what is stored for a value; it raises InvalidIndexconfig."""

    def get_possible_indexconfig_keys(self: Any) -> tuple[str, ...]:
        return keys

    def normalize_indexconfig_value(self: Any, key: str, value: Any) -> Any:
        return normalized(key, value)

    for method in (get_possible_indexconfig_keys, normalize_indexconfig_value):
        setattr(MirrorCustomizer, method.__name__, method)


def add_field(key: str, normalized: Callable[[object], Any]) -> None:
    """Add an attribute to indexes of every type. ``normalized``: what is stored for a value."""
    for stage in (PrivateStage, MirrorStage):
        _add_field(stage, key, normalized)


def _add_field(stage: Any, key: str, normalized: Callable[[object], Any]) -> None:
    keys, value_of = stage.get_possible_indexconfig_keys, stage.normalize_indexconfig_value

    def get_possible_indexconfig_keys(self: Any) -> tuple[str, ...]:
        return (*keys(self), key)

    def normalize_indexconfig_value(self: Any, name: str, value: Any) -> Any:
        return normalized(value) if name == key else value_of(self, name, value)

    for method in (get_possible_indexconfig_keys, normalize_indexconfig_value):
        setattr(stage, method.__name__, method)


def configured(user: Any) -> Mapping[str, Mapping[str, Any]]:
    """The indexes of a user, as stored."""
    return user.key.get().get("indexes") or {}


def is_mirror(stage: Any) -> bool:
    return bool(stage.ixconfig["type"] == "mirror")


# The changelog


def key_of(event: Any) -> Any:
    """The key of a change event."""
    return event.typedkey


def is_removal(event: Any) -> bool:
    """Whether a change event is of a key that was deleted."""
    return event.value is None


def uploads(keyfs: Any, connection: Any, serial: int) -> Iterator[tuple[str, bool]]:
    """The paths of uploaded files that a commit has stored (True) or removed."""
    for relpath, (keyname, _, value) in connection.get_changes(serial).items():
        if keyname in FILES and not _is_mirror(keyfs, connection, keyname, relpath):
            yield relpath, bool(value and value.get("last_modified"))


def removed(connection: Any, serial: int) -> Iterator[str]:
    """The paths of files that a commit has removed."""
    for relpath, (keyname, _, value) in connection.get_changes(serial).items():
        if keyname in FILES and not (value and value.get("last_modified")):
            yield relpath


def raw(connection: Any, serial: int) -> bytes:
    """One entry of the changelog; empty when there is none."""
    return connection.get_raw_changelog_entry(serial) or b""


def touched(keyfs: Any, connection: Any, serial: int, *, offline: bool) -> Iterator[str | None]:
    """The projects (normalised names) whose pages a commit may have changed; None stands for all pages.

    A kind of key that is not known here may belong to any page.
    """
    for relpath, (keyname, back_serial, value) in connection.get_changes(serial).items():
        if keyname in _OF_ONE_PROJECT:
            if offline or not _is_mirror(keyfs, connection, keyname, relpath):
                yield normalize_name(_parameters(keyfs, keyname, relpath)["project"])
        elif keyname == "PROJNAMES":
            if not _is_mirror(keyfs, connection, keyname, relpath):
                before = _value(connection, relpath, back_serial)
                yield from (normalize_name(name) for name in set(value or ()) ^ set(before or ()))
        elif keyname in FILES:
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


def _is_mirror(keyfs: Any, connection: Any, keyname: str, relpath: str) -> bool:
    """Whether a key is of a mirror. Its pages are its upstream's (:mod:`deployer.server.mirrors`); what devpi stores
    of them are the files that are here, which only pages of an offline server depend on."""
    of = _parameters(keyfs, keyname, relpath)
    user = keyfs.USER(user=of["user"])
    try:
        value = connection.get_relpath_at(user.relpath, connection.db_read_last_changelog_serial())[2]
    except KeyError:
        return False
    index = ((value or {}).get("indexes") or {}).get(of["index"]) or {}
    return bool(index.get("type") == "mirror")


def serving(stage: Any, project: str, narrowed: Callable[[Any, str], Iterable[Any]]) -> list[Any]:
    """The indexes that may serve a project through an index, in devpi's order.

    ``narrowed``: devpi's walk over the bases, without those that an ordered index refuses.
    """
    return list(narrowed(stage, project))


def uploaded(stages: Iterable[Any]) -> frozenset[str] | None:
    """The projects of indexes with uploads, where mirrors serve every other project; None where more decides that."""
    return frozenset(name for stage in stages for name in stage.list_projects_perstage())


# Files


def facts(xom: Any, paths: Iterable[str]) -> dict[str, tuple[int | None, str | None]]:
    """The size in bytes and the time of upload of files, by path."""
    found: dict[str, tuple[int | None, str | None]] = {}
    with xom.keyfs.read_transaction():
        for path in paths:
            entry = xom.filestore.get_file_entry(path)
            if entry is not None and entry.meta:
                found[path] = entry.file_size(), entry.last_modified
    return found


def try_others(mirror: Any, challenge: str) -> bool:
    """Whether a plugin has other credentials for a mirror's upstream, which has refused those sent."""
    return bool(mirror._update_auth_candidates(challenge))


def keep_files(xom: Any, files: Iterable[KeptFile]) -> None:
    """Store files of mirrors with their links, in one commit; none for those that were stored before and are lost.

    No two of them have the same place. Raises LookupError, and stores no new one, when a mirror is gone.
    """
    new = restored(xom, files, mirror=_mirror)
    if not new:
        return
    with xom.keyfs.write_transaction():
        for one in new:
            stage = _mirror(xom, one.index)
            link = _link(one.file)
            entry = xom.filestore.maplink(link, stage.username, stage.index, one.project)
            spec = link.hash_spec
            if one.content is not None:
                entry.file_set_content(
                    one.content,
                    last_modified=one.last_modified,
                    hash_spec=spec or None,
                    hashes=Digests(one.digests),
                )
            href = f"{entry.relpath}#{spec}" if spec else entry.relpath
            _add_link(stage, one.project, (one.file["filename"], href), one.file)


def _mirror(xom: Any, index: str) -> Any:
    """The mirror of that name. Raises LookupError when there is none."""
    stage = xom.model.getstage(index)
    if stage is None or not is_mirror(stage):
        raise LookupError(index)
    return stage


def _add_link(stage: Any, project: str, link: tuple[str, str], file: Mapping[str, Any]) -> None:
    """Add a link to those of the project. They are of the files that are here: devpi asks for the others."""
    key = stage.key_projsimplelinks(project)
    data = key.get_mutable()
    links = data.setdefault("links", [])
    if any(tuple(known) == link for known in links):
        return
    lists = {"requires_python": file.get("requires-python"), "yanked": file.get("yanked") or None}
    for name, value in lists.items():
        known = data.setdefault(name, [])
        known.extend([None] * (len(links) - len(known)))
        known.append(value)
    links.append(link)
    key.set(data | {"etag": None, "serial": -1})

    def committed() -> None:
        getattr(stage.xom, NAMES).note(stage.name, normalize_name(project))
        # devpi keeps this in memory: what is stored is not the page.
        stage.cache_retrieve_times.expire(project)

    stage.keyfs.tx.on_commit_success(committed)


def drop_files(xom: Any, index: str, files: Iterable[tuple[str, str]]) -> None:
    """Remove files of mirror ``index`` with their entries and links, in one commit. ``files``: path below the index,
    and project. devpi removes the files after the commit, also when it was killed in between."""
    with xom.keyfs.write_transaction():
        stage = xom.model.getstage(index)
        if stage is None or not is_mirror(stage):
            return
        for path, project in files:
            key = xom.filestore.get_key_from_relpath(f"{index}/{path}")
            entry = None if key is None else xom.filestore.get_file_entry_from_key(key)
            if entry is not None and entry.meta:
                entry.delete()
                _drop_link(stage, project, entry.relpath)


def _drop_link(stage: Any, project: str, relpath: str) -> None:
    """Remove the link of a file that is here no more, and the project with its last link."""
    key = stage.key_projsimplelinks(project)
    data = key.get_mutable()
    links = data.get("links") or []
    kept = [at for at, (_, href) in enumerate(links) if href.partition("#")[0] != relpath]
    stage.keyfs.tx.on_commit_success(lambda: stage.cache_retrieve_times.expire(project))
    if kept:
        lists = {name: data.get(name) or [] for name in ("links", "requires_python", "yanked")}
        key.set(data | {name: [known[at] for at in kept if at < len(known)] for name, known in lists.items()})
        return
    key.delete()
    projects = stage.key_projects.get_mutable()
    if project in projects:
        projects.remove(project)
        stage.key_projects.set(projects)


def links(stage: Any, files: Iterable[Mapping[str, Any]]) -> Any:
    """The links of a mirror's page, as devpi has them once it has stored them."""
    made = []
    for file in files:
        found = digest(file)
        href = f"{stage.name}/{place(file)}" + (f"#{found[0]}={found[1]}" if found else "")
        made.append((file["filename"], href, file.get("requires-python"), file.get("yanked") or None))
    return stage.SimpleLinks(made, core_metadata=stage.provides_core_metadata)


def _link(file: Mapping[str, Any]) -> Any:
    hashed = digest(file)
    return URL(f"{file['url']}#{hashed[0]}={hashed[1]}" if hashed else file["url"])


def forget_serials() -> None:
    """Have devpi take a page that it gets for the newest one: its ``X-PyPI-Last-Serial`` may be of another upstream."""
    setattr(MirrorStage, "ignore_serial_header", property(lambda _mirror: True))  # noqa: B010 - mypy knows a method


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
