"""devpi-server 7: the code that deployer uses, and the code that it replaces. :mod:`version6` has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from devpi_common.url import URL
from devpi_server.filestore import Digests
from devpi_server.markers import Deleted, notset
from devpi_server.model.base import BaseIndex
from devpi_server.model.config import ConfigField, ensure_list
from devpi_server.model.exceptions import InvalidIndexconfig
from devpi_server.model.inheritance import IndexBases, TraversalInfos, TraversedIndex
from devpi_server.model.local import LocalIndex
from devpi_server.model.remote import ProjectUpdateCache, RemoteIndexCustomizer, url_without_auth
from devpi_server.model.remote import RemoteIndex as MirrorStage
from devpi_server.model.simpleapi import SimpleInfo
from devpi_server.model.user import User
from devpi_server.normalized import normalize_name

from deployer.server.devpi.kept import KeptFile, restored
from deployer.server.devpi.links import digest

__all__ = ["InvalidIndexconfig", "MirrorStage", "ProjectUpdateCache", "ensure_list"]

LOCAL_INDEX, USER = LocalIndex, User
AUTHORIZATION = "remote_url_authorization_header"
OF_PAGES = ("USER", "INDEX", "PROJECT", "SIMPLEDATA", "VERSION")
FILE = "FILE"
_MARK = "deployer_narrowed"
FILES = frozenset({FILE, "FILE_NOHASH"})
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


def unlisted(_xom: Any) -> dict[str, set[str]]:
    """None: each name is stored with its project's first file."""
    return {}


def add_names(_xom: Any, names: Mapping[str, Iterable[str]]) -> int:
    raise AssertionError(f"names are stored with files: {sorted(names)}")


def origin(link: Any) -> str:
    return f"{link.user}/{link.index}"


def link_place(link: Any) -> str:
    return str(link.relpath)


def entry_place(entry: Any) -> tuple[str, str]:
    return f"{entry.user}/{entry.index}", str(entry.index_relpath)


def add_fields(keys: tuple[str, ...], normalized: Callable[[str, Any], Any]) -> None:
    inherited = RemoteIndexCustomizer.get_indexconfig_fields

    def get_indexconfig_fields(self: Any) -> list[Any]:
        added = (ConfigField(name=key, default=notset, normalize=partial(normalized, key), type=None) for key in keys)
        return [*inherited(self), *added]

    setattr(RemoteIndexCustomizer, get_indexconfig_fields.__name__, get_indexconfig_fields)


def add_field(key: str, normalized: Callable[[object], Any]) -> None:
    for stage in (LocalIndex, MirrorStage):
        _add_field(stage, key, normalized)


def _add_field(stage: Any, key: str, normalized: Callable[[object], Any]) -> None:
    inherited = stage._get_indexconfig_fields

    def _get_indexconfig_fields(self: Any) -> list[Any]:
        return [*inherited(self), ConfigField(name=key, default=notset, normalize=normalized, type=None)]

    stage._get_indexconfig_fields = _get_indexconfig_fields


def configured(user: Any) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = user.get_indexes()
    return found


def is_mirror(stage: Any) -> bool:
    return bool(stage.index_type == "remote")


# The changelog


def key_of(event: Any) -> Any:
    return event.data.key


def is_removal(event: Any) -> bool:
    return isinstance(event.data.value, Deleted)


def raw(connection: Any, serial: int) -> bytes:
    # The identifiers of keys are random, so no other history has the same.
    changes = (change.key for change in _at(connection, serial))
    return "\n".join(sorted(f"{key.key_name} {key.ulid}" for key in changes)).encode()


def _at(connection: Any, serial: int) -> Iterable[Any]:
    return connection.iter_changes_at(serial) if serial >= 0 else ()


def touched(keyfs: Any, connection: Any, serial: int, *, offline: bool) -> Iterator[str | None]:
    mirrors = _Mirrors(keyfs)
    for change in _at(connection, serial):
        key = change.key
        if key.key_name in _OF_ONE_PROJECT:
            if offline or (key.params.get("user"), key.params.get("index")) not in mirrors:
                yield str(normalize_name(key.params["project"]))
        elif key.key_name in FILES:
            if offline:
                entry = _entry(connection, change)
                yield str(normalize_name(entry["project"])) if entry.get("project") else None
        elif key.key_name not in _OF_NO_PAGE:
            yield None


class _Mirrors:
    """The names of mirrors, asked for one at a time and once each."""

    def __init__(self, keyfs: Any) -> None:
        self._keyfs = keyfs
        self._known: dict[tuple[str, str], bool] = {}

    def __contains__(self, index: Any) -> bool:
        if index not in self._known:
            self._known[index] = self._is_mirror(*index)
        return self._known[index]

    def _is_mirror(self, user: str | None, index: str | None) -> bool:
        if user is None or index is None:
            return False
        with self._keyfs.read_transaction(allow_reuse=True):
            key = self._keyfs.schema.INDEX.locate(user=user, index=index)
            found = key.with_resolved_parent().get() if key.exists(resolve_parents=True) else {}
        return bool(found.get("type") == "remote")


def _entry(connection: Any, change: Any) -> Mapping[str, Any]:
    if not isinstance(change.value, Deleted):
        return change.value or {}
    try:
        before = connection.get_key_at_serial(change.key, change.back_serial).value
    except KeyError:
        return {}
    return {} if isinstance(before, Deleted) else before or {}


def serving(stage: Any, project: str, narrowed: Callable[[Any, str], Iterable[Any]]) -> list[Any]:
    # devpi's own walk is narrowed, and knows the rules of inheritance.
    found = stage.index_bases.get_project_inheritance_info(normalize_name(project))
    return [step.index for step in found.iter_indexes("serving")]


def uploaded(stages: Iterable[Any]) -> frozenset[str] | None:
    """devpi 7 has rules for each project."""
    return None


# Files


def facts(xom: Any, paths: Iterable[str]) -> dict[str, tuple[int | None, str | None]]:
    found: dict[str, tuple[int | None, str | None]] = {}
    with xom.keyfs.read_transaction():
        for path in paths:
            entry = xom.filestore.get_file_entry(path)
            if entry is not None and entry.meta:
                found[path] = entry.size, entry.last_modified
    return found


def try_others(mirror: Any, challenge: str) -> bool:
    return bool(mirror._update_auth_candidates(challenge))


def keep_files(xom: Any, files: Iterable[KeptFile]) -> None:
    new = restored(xom, files, mirror=_mirror)
    if not new:
        return
    with xom.keyfs.write_transaction():
        for one in new:
            add_file(
                xom,
                _mirror(xom, one.index),
                one.project,
                one.file,
                content=one.content,
                digests=one.digests,
                size=one.size,
                last_modified=one.last_modified,
            )


def _mirror(xom: Any, index: str) -> Any:
    stage = xom.model.getstage(index)
    if stage is None or not is_mirror(stage):
        raise LookupError(index)
    return stage


def add_file(
    xom: Any,
    stage: Any,
    project: str,
    file: Mapping[str, Any],
    *,
    content: Any,
    digests: Mapping[str, str],
    size: int,
    last_modified: str,
) -> str:
    """Add a file to the mirror ``stage`` in the present transaction; its path below the index."""
    hashed = digest(file)
    info = SimpleInfo(
        basename=file["filename"],
        hashes=Digests({hashed[0]: hashed[1]}) if hashed else Digests(),
        metadata_hashes=None,
        requires_python=file.get("requires-python"),
        size=file.get("size"),
        upload_time=file.get("upload-time"),
        url=URL(file["url"]),
        yanked=file.get("yanked") or None,
    )
    entry = info.make_mutable_entry(xom.keyfs.schema, stage.username, stage.index, project)
    if content is not None:
        entry.file_set_content(content, hashes=Digests(digests), last_modified=last_modified, size=size)
    _add_link(stage, normalize_name(project), info, entry.index_relpath)
    return str(entry.index_relpath)


def _add_link(stage: Any, project: Any, info: Any, relpath: str) -> None:
    stage.add_project_name(project)
    about = stage.key_remoteprojectinfo(project).with_resolved_parent()
    if not about.exists():
        about.set({**stage._get_remotedata(project).get_cache_info(), "serial": -1, "etag": None})
    data: dict[str, Any] = {"relpath": relpath}
    data |= {"hashes": info.hashes} if info.hashes else {}
    named = {"requires_python": info.requires_python, "size": info.size, "upload_time": info.upload_time}
    data |= {name: value for name, value in (named | {"yanked": info.yanked}).items() if value is not None}
    for key, left_out in ((stage.key_remotefile, {"hashes", "size"}), (stage.key_simpledata, set())):
        found = key(project, info.basename).with_resolved_parent()
        found.set({name: value for name, value in data.items() if name not in left_out})
    stage.keyfs.tx.on_commit_success(lambda: stage.cache_retrieve_times.expire(project))


def drop_files(xom: Any, index: str, files: Iterable[tuple[str, str]]) -> None:
    with xom.keyfs.write_transaction():
        stage = xom.model.getstage(index)
        if stage is None or not is_mirror(stage):
            return
        for path, project in files:
            entry = xom.filestore.get_mutable_file_entry(f"{index}/{path}")
            if entry is not None and entry.meta:
                entry.delete()
                _drop_link(stage, normalize_name(project), path.rpartition("/")[2])


def _drop_link(stage: Any, project: Any, filename: str) -> None:
    for key in (stage.key_remotefile, stage.key_simpledata):
        found = key(project, filename)
        if found.exists(resolve_parents=True):
            found.with_resolved_parent().delete()
    if not list(stage.key_simpledata(project).with_resolved_parent().iter_ulidkeys(fill_cache=False)):
        stage.key_project(project).with_resolved_parent().delete()
    stage.keyfs.tx.on_commit_success(lambda: stage.cache_retrieve_times.expire(project))


def forget_serials() -> None:
    """devpi 7 keeps serials by upstream."""


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
