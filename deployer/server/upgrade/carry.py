"""Carry the data of devpi-server 6 over to a server directory of devpi-server 7: as devpi's own import does, and again
for what was changed since. On no directory that a server runs on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from devpi_server.filestore import get_hashes
from devpi_server.importexport import Importer, Migrator
from devpi_server.normalized import normalize_name

from deployer.server.devpi import version7
from deployer.server.devpi.stored import FILES
from deployer.server.upgrade.data6 import Data, Mirrored, Project

COMMIT = 100
"""Files of one commit: a commit of each file would take most of the time."""
DUMP = 2
"""The version of devpi-server 6's export, whose words the data has."""


class FileGone(Exception):
    """A file that the data names is not here: it was deleted meanwhile, or is lost."""


class Carrier(Importer):
    """``files``: the directory ``+files`` of the old data. ``progress``: called with the files that were carried."""

    def __init__(self, xom: Any, files: Path, progress: Callable[[int], None] = lambda files: None) -> None:
        self.xom, self.filestore, self.import_rootdir = xom, xom.filestore, files
        self._progress = progress
        self._done = 0

    @property
    def _model(self) -> Any:
        """devpi's users and indexes; of version 7, whatever version is checked against."""
        return self.xom.model

    def warn(self, _message: str) -> None:
        """devpi's import warns of metadata that it completes; nothing follows from it."""

    def settle(self, data: Data) -> list[Project]:
        """Make users and indexes what ``data`` says; the projects to carry: those that were touched, are gone, or lack.

        Only uploads are looked for: what a mirror lacks is fetched again.
        """
        migrated = Migrator(dumpversion=DUMP).migrate(
            {
                "users": {name: dict(config) for name, config in data.users.items()},
                "indexes": {name: {"indexconfig": dict(config)} for name, config in data.indexes.items()},
            }
        )
        configs = {name: found["indexconfig"] for name, found in migrated["indexes"].items()}
        with self.xom.keyfs.write_transaction():
            self._users(migrated["users"])
            self._indexes(configs)
        due = set(data.touched)
        with self.xom.keyfs.read_transaction():
            for name, config in data.indexes.items():
                if config.get("type") != "mirror":
                    held = {(name, str(project)) for project in self._model.getstage(name).list_projects_perstage()}
                    due |= held ^ {place for place in data.versions if place[0] == name}
        return sorted(place for place in due if place[0] in data.indexes)

    def carry(self, data: Data, due: Sequence[Project]) -> None:
        """Make the projects that are ``due`` what ``data`` says, or remove them.

        Raises FileGone for an upload that is not here; a file of a mirror is left out then.
        """
        for batch in _batches(due, data):
            with self.xom.keyfs.write_transaction():
                for place in batch:
                    self._project(data, place)
                self._make_room()
            self._progress(self._done)
        self._allowed(data)

    def _users(self, users: dict[str, dict[str, Any]]) -> None:
        for known in self._model.get_userlist():
            if known.name not in users:
                for stage in known.getstages():
                    stage.delete()
                known.delete()
        for name, config in users.items():
            user = self._model.get_user(name)
            if user is None:
                user = self._model.create_user(name, password="")
                config.setdefault("created", "1970-01-01T00:00:00Z")
            with user.key.update() as stored:
                stored.clear()
                stored.update({key: value for key, value in config.items() if key != "username"})

    def _indexes(self, configs: dict[str, dict[str, Any]]) -> None:
        for user in self._model.get_userlist():
            for stage in user.getstages():
                if stage.name not in configs or stage.index_type != configs[stage.name]["type"]:
                    stage.delete()
        for name, config in configs.items():  # without bases: they may go in circles
            user_name, index = name.split("/")
            settings = {key: value for key, value in config.items() if key != "bases"}
            stage = self._model.getstage(name)
            if stage is None:
                stage = self._model.get_user(user_name).create_stage(index, type=config["type"])
            stage.modify(**settings, _keep_unknown=True)
            if "bases" in config:
                with stage.key_index.with_resolved_parent().update() as stored:
                    stored["bases"] = tuple(config["bases"])

    def _project(self, data: Data, place: Project) -> None:
        index, name = place
        stage = self._model.getstage(index)
        if version7.is_mirror(stage):
            for file in data.mirrored.get(place, ()):
                self._mirrored(stage, name, file)
            return
        project = normalize_name(name)
        if stage.has_project_perstage(project):
            stage.del_project(project)
        if place not in data.versions:
            return
        versions = data.versions[place]
        stage.add_project_name(next((str(one["name"]) for one in versions.values() if one.get("name")), name))
        for version, metadata in versions.items():
            metadata.pop(":action", None)
            stage.set_versiondata({**metadata, "version": metadata.get("version") or version})
        migrator = Migrator(dumpversion=DUMP)
        for one in data.files.get(place, ()):
            self._present(str(one["relpath"]))
            self.import_filedesc(stage, migrator.migrate_file(one), versions)
            self._done += 1

    def _make_room(self) -> None:
        """Remove the files that those of this transaction replace.

        A hard link that is renamed to another one of the same file stays (rename(2)), as devpi's temporary file.
        """
        directory = Path(self.xom.config.server_path) / FILES
        for path in self.xom.keyfs.tx.io_file._dirty_files:
            (directory / path).unlink(missing_ok=True)

    def _mirrored(self, stage: Any, project: str, one: Mirrored) -> None:
        source = self.import_rootdir / one.path
        try:
            size = source.stat().st_size
        except FileNotFoundError:
            return
        hashes = dict(one.entry.get("hashes") or {})
        if "sha256" not in hashes:
            with source.open("rb") as stream:
                hashes |= get_hashes(stream)
        with source.open("rb") as stream:
            linked = _Linked(stream, source)
            version7.add_file(
                self.xom,
                stage,
                project,
                one.file,
                content=linked,
                digests=hashes,
                size=size,
                last_modified=one.entry["last_modified"],
            )
        self._done += 1

    def _present(self, path: str) -> None:
        """Wait for a file that a commit has just stored: devpi renames it after the commit. Raises FileGone."""
        deadline = time.monotonic() + 2.0
        while not (self.import_rootdir / path).is_file():
            if time.monotonic() > deadline:
                raise FileGone(path)
            time.sleep(0.05)

    def _allowed(self, data: Data) -> None:
        """Set the rule of devpi-server 7 for each project in a ``mirror_whitelist`` of devpi-server 6."""
        named = {
            name: set(config.get("mirror_whitelist") or ()) - {"*"}
            for name, config in data.indexes.items()
            if config.get("type") != "mirror"
        }
        with self.xom.keyfs.write_transaction():
            for index, projects in named.items():
                stage = self._model.getstage(index)
                for project in sorted(projects):
                    stage.modify_project(normalize_name(project), inheritance_rules="allow all")


class _Linked:
    """A file as devpi takes it, with the path that it makes a hard link of."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream = stream
        self.devpi_srcpath = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _batches(due: Iterable[Project], data: Data) -> Iterator[list[Project]]:
    batch: list[Project] = []
    size = 0
    for place in due:
        batch.append(place)
        size += 1 + len(data.files.get(place, ())) + len(data.mirrored.get(place, ()))
        if size >= COMMIT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def arguments(serverdir: Path) -> list[str]:
    """The options of devpi's server for a directory that is carried to: files are linked."""
    return ["devpi-server", "--serverdir", str(serverdir), "--hard-links"]
