"""Everything inside devpi-server that deployer relies on: one table, checked at each start, before any data is touched.

A devpi-server that lacks one of these is refused: it could serve stale pages, or without a protection, and nobody would
notice. What deployer replaces is part of the table, too (:mod:`replacements`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import CodeType
from typing import Any

from deployer.server.devpi.installed import installed, unsupported


@dataclass(frozen=True)
class Reliance:
    """One name of devpi's code. ``path``: attributes, by dots, in ``module``.

    ``words``: names and strings that the code of this function or property has to contain: attributes that it sets, or
    the name of a singleton.
    """

    module: str
    path: str
    words: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The first name that is not found; empty when all are."""
        try:
            found: Any = import_module(self.module)
        except ImportError:
            return self.module
        for name in self.path.split("."):
            if name in getattr(found, "__annotations__", {}):  # set for each instance
                return ""
            try:
                found = inspect.getattr_static(found, name)
            except AttributeError:
                return self.path
        known = set(_words(_code(found)))
        return next((f"{self.path}: {word}" for word in self.words if word not in known), "")


def _code(found: Any) -> CodeType | None:
    match found:
        case property():
            found = found.fget
        case cached_property():
            found = found.func
        case classmethod() | staticmethod():
            found = found.__func__
    return getattr(inspect.unwrap(found), "__code__", None) if callable(found) else None


def _words(code: CodeType | None) -> Iterator[str]:
    if code is None:
        return
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _words(constant)


_Table = Mapping[str, tuple[str | tuple[str, tuple[str, ...]], ...]]


def _table(found: _Table) -> tuple[Reliance, ...]:
    return tuple(
        Reliance(module, name) if isinstance(name, str) else Reliance(module, *name)
        for module, names in found.items()
        for name in names
    )


_HOOKS = (
    "devpiserver_auth_denials",
    "devpiserver_get_credentials",
    "devpiserver_get_identity",
    "devpiserver_get_stage_customizer_classes",
    "devpiserver_identity_loaded",
    "devpiserver_on_remove_file",
    "devpiserver_on_upload",
    "devpiserver_pyramid_configure",
    "devpiserver_stage_get_principals_for_pkg_read",
)
_OF_A_MIRROR = (
    "UpstreamError",
    "UpstreamNotModified",
    "_async_fetch_releaselinks",
    "_update_simplelinks_in_future",
    "get_simplelinks_perstage",
)


def _mirror(name: str, *own: str) -> tuple[str | tuple[str, tuple[str, ...]], ...]:
    """A mirror index: class ``name``, its singletons, and the class of one of them."""
    return (
        *(f"{name}.{attribute}" for attribute in (*_OF_A_MIRROR, *own)),
        (f"{name}.cache_retrieve_times", ("project_retrieve_times",)),
        (f"{name}._update_auth_candidates", ("auth_candidates",)),
        "ProjectUpdateCache.expire",
    )


BOTH = _table(
    {
        "devpi_server.auth": ("hash_password", "pwd_context"),
        "devpi_server.config": (
            "Config.nodeinfo",
            "Config.offline_mode",
            "Config.request_timeout",
            "Config.server_path",
            "Config.waitress_info",
            "get_pluginmanager",
            "parseoptions",
        ),
        "devpi_server.hookspecs": _HOOKS,
        "devpi_server.fileutil": ("dumps", "loads"),
        "devpi_server.filestore": (
            "BaseFileEntry.file_set_content_no_meta",
            "BaseFileEntry.has_existing_metadata",
            "BaseFileEntry.hashes",
            "BaseFileEntry.last_modified",
            "BaseFileEntry.meta",
            "Digests",
            "FileStore.get_file_entry",
            "MutableFileEntry.delete",
            "MutableFileEntry.file_set_content",
            "ZipFile",
            "get_hashes",
            ("get_core_metadata", ("ZipFile", "read")),
        ),
        # a file is linked, not copied
        "devpi_server.filestore_fs": (("FSFactory.from_content", ("devpi_srcpath", "link")),),
        "devpi_server.httpclient": (
            "FatalResponse",
            "HTTPClient.Errors",
            "HTTPClient._ssl_context",
            "HTTPClient.async_get",
            "HTTPClient.get",
            "HTTPClient.stream",
        ),
        "devpi_server.init": ("init",),
        "devpi_server.keyfs": (
            ("KeyFS.__init__", ("notifier",)),
            "KeyFS.filestore_transaction",
            "KeyFS.get_connection",
            "KeyFS.read_transaction",
            "KeyFS.tx",
            "KeyFS.write_transaction",
            ("Transaction.__init__", ("at_serial", "commit_serial")),
            "Transaction.doom",
            "Transaction.on_commit_success",
            "TxNotificationThread.on_key_change",
        ),
        "devpi_server.log": ("configure_logging", "threadlog"),
        "devpi_server.main": (
            "Fatal",
            "XOM.filestore",
            "XOM.get_singleton",
            "XOM.http",
            "XOM.main",
            "XOM.model",
            "XOM.setdefault_singleton",
            "xom_from_config",
        ),
        "devpi_server.normalized": ("normalize_name",),
        "devpi_server.view_auth": (
            ("DevpiSecurityPolicy._get_credentials", ("devpiserver_get_credentials",)),
            "CredentialsIdentity",
            "RootFactory",
        ),
        "devpi_server.views": (
            "INSTALLER_USER_AGENT_REGEXP",
            "PyPIView._pkgserv",
            "PyPIView._push_external",
            "PyPIView.simple_refresh",
            "PyPIView.submit",
            "SIMPLE_API_V1_JSON",
            "abort_submit",
            "apiresult",
            "tween_keyfs_transaction",
            "tween_request_logging",
        ),
    }
)
OF_6 = _table(
    {
        "devpi_server.filestore": (
            "BaseFileEntry.file_size",
            "BaseFileEntry.relpath",
            "FileStore.get_file_entry_from_key",
            "FileStore.get_key_from_relpath",
            ("FileStore.maplink", ("hash_spec",)),
        ),
        "devpi_server.keyfs": (
            ("KeyChangeEvent.__init__", ("at_serial", "typedkey", "value")),
            "KeyFS.get_key",
            "KeyFS.wait_tx_serial",
        ),
        "devpi_server.keyfs_sqlite": (
            "Connection.db_read_last_changelog_serial",
            "Connection.fetchall",
            "Connection.get_changes",
            "Connection.get_raw_changelog_entry",
            "Connection.get_relpath_at",
        ),
        "devpi_server.main": (("XOM.__init__", ("replica_thread",)), "XOM._http", "XOM.is_primary"),
        "devpi_server.mirror": (
            "MirrorStage.SimpleLinks",
            "MirrorStage.UpstreamNotFoundError",
            "MirrorStage.provides_core_metadata",
            *_mirror(
                "MirrorStage", "ignore_serial_header", "mirror_url_authorization_header", "mirror_url_without_auth"
            ),
            "MirrorStage.get_possible_indexconfig_keys",
            "MirrorStage.normalize_indexconfig_value",
            "MirrorCustomizer.get_possible_indexconfig_keys",
            "MirrorCustomizer.normalize_indexconfig_value",
        ),
        "devpi_server.model": (
            ("BaseStage.__init__", ("key_projects",)),
            "BaseStage.get_mirror_whitelist_info",
            "BaseStage.get_simplelinks",
            "BaseStage.has_project_perstage",
            "BaseStage.key_projsimplelinks",
            "BaseStage.list_projects_perstage",
            "BaseStage.op_sro",
            "BaseStage.op_sro_check_mirror_whitelist",
            "BaseStage.sro",
            "InvalidIndexconfig",
            "PrivateStage.get_possible_indexconfig_keys",
            "PrivateStage.normalize_indexconfig_value",
            "PrivateStage.store_doczip",
            "PrivateStage.store_releasefile",
            "PrivateStage.store_toxresult",
            "RootModel.create_user",
            "RootModel.get_user",
            "RootModel.get_userlist",
            "RootModel.getstage",
            ("SimpleLinks.__init__", ("_links",)),
            "SimplelinkMeta.path",
            "UpstreamError",
            "User.create_stage",
            "User.key",
            "User.modify",
            "User.validate",
            (
                "add_keys",
                (
                    *("MIRRORNAMESINIT", "PROJNAMES", "PROJSIMPLELINKS", "PROJVERSION", "PROJVERSIONS"),
                    *("PYPIFILE_NOMD5", "STAGEFILE", "USER", "USERLIST"),
                ),
            ),
            "ensure_list",
        ),
        "devpi_server.replica": (
            (
                "FileReplicationSharedData.__init__",
                ("_replica_metadata_in_sync_cv", "error_queue", "errors", "init_queue_finished_at", "queue"),
            ),
            ("FileReplicationThread.find_pre_existing_file", ("devpi_srcpath", "file_search_path")),
            ("FileReplicationThread.importer", ("find_pre_existing_file",)),
            "ReplicaHTTPClient.get_extra_headers",
            ("ReplicaThread.__init__", ("http", "shared_data")),
            "ReplicaThread.replica_metadata_in_sync_at",
            "devpiserver_get_identity",
            ("proxy_request_to_primary", ("body_file", "_http")),
        ),
    }
)
OF_7 = _table(
    {
        "devpi_server.filestore": (
            "BaseFileEntry.index",
            "BaseFileEntry.index_relpath",
            "BaseFileEntry.size",
            "BaseFileEntry.user",
            "FileStore.get_mutable_file_entry",
        ),
        "devpi_server.filestore_fs_base": (("FSIOFileBase.__init__", ("_dirty_files",)),),
        "devpi_server.importexport": (
            ("Importer.import_filedesc", ("devpi_srcpath", "import_rootdir")),
            "Migrator.migrate",
            "Migrator.migrate_file",
        ),
        "devpi_server.keyfs": (
            "KeyChangeEvent.at_serial",
            "KeyChangeEvent.data",
            "Transaction.get_original",
            "Transaction.resolve_keys",
        ),
        "devpi_server.keyfs_sqla_lite": (
            "Connection.db_read_last_changelog_serial",
            "Connection.get_key_at_serial",
            "Connection.iter_changes_at",
            "Connection.iter_keys_at_serial",
            "Connection.iter_ulidkeys_at_serial",
        ),
        "devpi_server.markers": ("Deleted", "notset"),
        "devpi_server.model.base": (
            ("BaseIndex.__init__", ("key_project",)),
            "BaseIndex.get_simplelinks",
            "BaseIndex.has_project",
            "BaseIndex.has_project_perstage",
            "BaseIndex.index_bases",
            "BaseIndex.index_type",
            "BaseIndex.key_simpledata",
            "BaseIndex.list_projects",
            "BaseIndex.list_projects_perstage",
            "BaseIndex.modify",
            "BaseIndex.modify_project",
            "BaseIndex.sro",
        ),
        "devpi_server.model.config": ("ConfigField", "ensure_list"),
        "devpi_server.model.exceptions": ("InvalidIndexconfig",),
        "devpi_server.model.inheritance": (
            "IndexBases._get_project_inheritance_info",
            "IndexBases.get_project_inheritance_info",
            "IndexBases.iter_indexes",
            "IndexBases.traversal_infos",
            "TraversalInfos.paths",
            "TraversalInfos.steps",
            "TraversedIndex.index",
        ),
        "devpi_server.model.links": (("SimpleLinks.__init__", ("_links",)), "SimplelinkMeta.relpath"),
        "devpi_server.model.local": (
            "LocalIndex._get_indexconfig_fields",
            "LocalIndex.add_project_name",
            "LocalIndex.del_project",
            "LocalIndex.delete",
            "LocalIndex.set_versiondata",
            "LocalIndex.store_doczip",
            "LocalIndex.store_releasefile",
            "LocalIndex.store_toxresult",
        ),
        "devpi_server.model.remote": (
            "RemoteIndex._get_indexconfig_fields",
            "RemoteIndexCustomizer.get_indexconfig_fields",
            *_mirror(
                "RemoteIndex",
                "_get_remotedata",
                "key_remotefile",
                "key_remoteprojectinfo",
                "remote_url",
                "remote_url_authorization_header",
            ),
            ("RemoteData.get_cache_info", ("etag", "serial", "url_key")),
            "url_without_auth",
        ),
        "devpi_server.model.root": (
            "RootModel.create_user",
            "RootModel.get_user",
            "RootModel.get_userlist",
            "RootModel.getstage",
        ),
        "devpi_server.model.schema": tuple(
            f"Schema.{kind}"
            for kind in (
                *("DIGESTULIDS", "DOCZIP", "FILE", "FILE_NOHASH", "INDEX", "PROJECT", "REMOTEFILE", "REMOTENAMESINIT"),
                *("REMOTEPROJECTINFO", "SIMPLEDATA", "TOXRESULT", "USER", "VERSION", "VERSIONFILE", "VERSIONMETADATA"),
            )
        ),
        "devpi_server.model.simpleapi": (
            *(f"SimpleInfo.{name}" for name in ("basename", "hashes", "metadata_hashes", "requires_python", "size")),
            *(f"SimpleInfo.{name}" for name in ("upload_time", "url", "yanked")),
            ("SimpleInfo.make_mutable_entry", ("resolve",)),
        ),
        "devpi_server.model.user": (
            "User.create_stage",
            "User.delete",
            "User.get_indexes",
            "User.getstages",
            "User.modify",
            "User.validate",
        ),
    }
)
OF_TOKENS = _table(
    {
        "devpi_tokens.server": (
            "TokenIdentity.restrictions",
            "TokenUtility._derive_key",
            "devpi_token_utility",
            "devpiserver_get_identity",
        ),
        "devpi_tokens.views": ("user_token_create", "user_token_delete", "user_tokens_info"),
    }
)
OF_LDAP = _table(
    {
        "devpi_ldap.main": (
            "DEFAULT_TIMEOUT",
            "LDAP.validate",
            "LDAP._server",
            ("LDAP.connection", ("DEFAULT_TIMEOUT",)),
            ("LDAP.server_pool", ("_server",)),
            ("devpiserver_auth_request", ("validate",)),
        )
    }
)
OF_WEB = _table(
    {
        "devpi_web.doczip": (
            "Archive",
            "Docs._entries",
            "Docs.__getitem__",
            "Docs._packed_entries",
            ("docs_exist", ("docs_file_exists",)),
            "docs_file_exists",
            ("keep_docs_packed", ("keep_docs_packed",)),
        ),
        "devpi_web.main": (("includeme", ("docroot",)),),
        "devpi_web.views": (
            "ContextWrapper",
            "docs_file_content",
            "docs_file_exists",
            ("get_doc_info", ("docs_file_content", "docs_file_exists")),
        ),
    }
)


def table(*, web: bool) -> tuple[Reliance, ...]:
    """Everything that is relied on in what is installed. ``web``: also what is in devpi-web."""
    own = {"6": OF_6, "7": OF_7}[installed().major]
    return (
        *BOTH,
        *own,
        *(OF_TOKENS if has_tokens() else ()),
        *(OF_LDAP if has_ldap() else ()),
        *(OF_WEB if web else ()),
    )


def has_tokens() -> bool:
    """Whether the plugin devpi-tokens is installed."""
    return find_spec("devpi_tokens") is not None


def has_ldap() -> bool:
    """Whether the plugin devpi-ldap is installed."""
    return find_spec("devpi_ldap") is not None


def missing(reliances: Iterable[Reliance]) -> Iterator[str]:
    """The names that are not found."""
    return (reliance.missing for reliance in reliances if reliance.missing)


def has_web() -> bool:
    """Whether the plugin devpi-web is installed."""
    return find_spec("devpi_web") is not None


def check(*, web: bool) -> None:
    """Raise Refusal, with the name of what is missing, for a devpi-server that lacks anything of the table."""
    for name in missing(table(web=web)):
        raise unsupported(f"{name} not found")
