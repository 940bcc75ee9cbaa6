"""Take, list and prune backups: our own image reads the data, and writes plain files into a directory of this host."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.deployment.find import require
from deployer.deployment.lock import hold
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, DeployerError, Refused, UsageError, VerificationError
from deployer.host import untrusted
from deployer.host.runner import Runner
from deployer.operations import backup_remote
from deployer.operations.once import answer, on_data
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.recorded import as_deployed
from deployer.operations.up import have_own_image
from deployer.plan.data import CONTAINER_UID
from deployer.profile.load import load
from deployer.profile.load.overrides import Override
from deployer.protocol import Backup
from deployer.spec import ContainerSpec, EngineInfo, Mount

if TYPE_CHECKING:
    from deployer.profile.models import Backups
    from deployer.ui.output import UI

MANIFEST = 64 << 20
"""Bytes that a manifest may have: it names the pieces of a database of a terabyte."""
INSIDE = "/backup"
"""Where a container sees the directory of the backups."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The directory of the backups, and what the profile says of them."""

    directory: Path
    settings: Backups


def place(profile: str, name: str, directory: str) -> Place:
    """Find the directory of the backups: the option's, else the profile's. Raises UsageError, Refused."""
    ref, held = as_deployed(profile, name, ())
    settings = load(ref, overrides=held).profile.backup
    chosen = directory or settings.directory
    if not chosen:
        raise UsageError("no directory for the backups", hint="add --directory DIR, or set backup.directory")
    path = Path(os.path.normpath(Path(chosen).expanduser().absolute()))
    if path == Path.home() or len(path.parts) < 3:
        raise Refused(f"{path} is a system or home directory", hint="choose a directory below it")
    return Place(directory=path, settings=settings)


def create(profile: str, name: str, *, where: Place, engine: str = "", cache: bool, ui: UI) -> dict[str, Any]:
    """Take a backup of the deployment ``name``, which goes on serving; what the server side says of it.

    Raises Locked while another backup runs, ConflictError, Refused, VerificationError.
    """
    prepared = deployed(profile, name, engine=engine)
    with hold(name, purpose="backup"):
        data = prepared.plan.spec.mounts[0]
        check_apart(data, where.directory)
        check_reachable(data, prepared.facts.engine)
        have_own_image(prepared, ui)
        make_directory(prepared, where.directory)
        _write_incoming(prepared, where)
        words = () if cache else ("--without-cache",)
        spec = calling(prepared, "create", where.directory, data, words=words)
        with ui.working("backup", f"{data.source} to {where.directory}"):
            made: dict[str, Any] = answer(prepared.engine, spec, doing="the backup", again="deployer backup create")
        if where.settings.remote.repository:
            _copy(where, made["name"], ui)
    _run_after(where, made["name"])
    return made


def prune(
    profile: str, name: str, *, where: Place, engine: str = "", keep: Mapping[str, int], ui: UI
) -> dict[str, Any]:
    """Remove backups that the rules do not keep. Raises UsageError without rules."""
    if not any(keep.values()):
        raise UsageError("no rule says which backups to keep", hint="add --keep-daily 7, or set backup.keep")
    prepared = deployed(profile, name, engine=engine)
    with hold(name, purpose="backup"):
        have_own_image(prepared, ui)
        words = tuple(word for rule, number in keep.items() for word in (f"--keep-{rule}", str(number)))
        spec = calling(prepared, "prune", where.directory, words=words)
        with ui.working("backup", f"pruning {where.directory}"):
            said: dict[str, Any] = answer(prepared.engine, spec, doing="the run", again="deployer backup prune")
        if where.settings.remote.repository:
            with ui.working("backup", "pruning the copy"):
                backup_remote.prune(where.settings.remote, where.directory, keep)
    return said


def listed(where: Place) -> list[Backup]:
    """The backups in the directory, oldest first. Raises ConflictError, VerificationError."""
    found = []
    try:
        names = sorted(path.name for path in (where.directory / "backups").iterdir() if path.suffix == ".json")
        for name in names:
            content = untrusted.read(where.directory, f"backups/{name}", limit=MANIFEST)
            backup = Backup.parse(content) if content is not None else None
            if backup is None or f"{backup.name}.json" != name:
                path = where.directory / "backups" / name
                raise VerificationError(
                    f"{path} is damaged, or of a newer deployer", hint=f"upgrade deployer, or move {path} away"
                )
            found.append(backup)
    except FileNotFoundError:
        return []
    except (OSError, untrusted.Untrusted) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConflictError(f"{where.directory} can't be read: {why}", hint="run it as its owner") from None
    return found


def trusted(where: Place, backup: Backup) -> bool:
    """Whether no other user but root could have changed what the backup says: it may name commands to run."""
    status = (where.directory / "backups" / f"{backup.name}.json").lstat()
    return status.st_uid in (0, os.geteuid())


def chosen(where: Place, name: str) -> Backup:
    """The backup ``name``, or the last one. Raises ConflictError."""
    found = listed(where)
    fitting = found[-1:] if name == "latest" else [backup for backup in found if backup.name == name]
    if not fitting:
        raise ConflictError(
            f"{where.directory} holds no backup {name}" if found else f"{where.directory} holds no backup",
            hint="deployer backup list --directory DIR",
        )
    return fitting[0]


def deployed(profile: str, name: str, *, engine: str = "") -> Prepared:
    """The plan of an existing deployment, whatever room its disk has. Raises ConflictError when there is none."""
    require(name, engine=engine)
    own = (Override("server.min_free", "", "backup"), *((Override("engine", engine, "--engine"),) if engine else ()))
    ref, overrides = as_deployed(profile, name, own)
    return prepare(ref, name, overrides=overrides)


def calling(
    prepared: Prepared,
    action: str,
    directory: Path,
    *data: Mount,
    words: Sequence[str] = (),
    secrets: Path | None = None,
) -> ContainerSpec:
    """Return the run of one action on the backups in ``directory``, and on ``data``. Pure."""
    relabel = prepared.facts.selinux
    mounts = [Mount(kind="bind", source=str(directory), target=INSIDE, relabel=relabel)]
    mounts += [replace(one, target="/data") for one in data]
    if secrets is not None:
        mounts.append(Mount(kind="bind", source=str(secrets), target="/secrets", read_only=True, relabel=relabel))

    def command(paths: Sequence[str]) -> tuple[str, ...]:
        said = ["backup", action, "--directory", paths[0], *words]
        if data:
            said += ["--serverdir", paths[1]]
        if secrets is not None:
            said += ["--secrets", f"{paths[-1]}/{secrets_file(Path(paths[-1])).name}"]
        return tuple(said)

    return on_data(
        prepared.plan.spec,
        purpose="backup",
        engine=prepared.plan.engine.name,
        image=prepared.facts.image_ref,
        mounts=mounts,
        command=command,
    )


def secrets_file(directory: Path) -> Path:
    return directory / "secrets.json"


def owner(prepared: Prepared) -> tuple[int, int]:
    """The user on this host that runs as the server does, and so owns the backups."""
    data = prepared.plan.data
    return (CONTAINER_UID, CONTAINER_UID) if data.kind == "volume" else (data.uid, data.gid)


def check_apart(data: Mount, directory: Path) -> None:
    """Refuse a directory in the data, or around it. Raises Refused."""
    if data.kind == "bind":
        held = Path(data.source)
        if directory.is_relative_to(held) or held.is_relative_to(directory):
            raise Refused(
                f"{directory} and the data in {held} overlap", hint="choose another directory with --directory"
            )


def check_reachable(data: Mount, engine: EngineInfo) -> None:
    """Refuse a volume of a rootless engine: who owns its files inside is nobody who may write to this host.

    Raises Refused.
    """
    if data.kind == "volume" and engine.rootless:
        raise Refused(
            f"a rootless {engine.name} can't carry backups between the volume {data.source} and this host",
            hint="keep the data in a directory (data: home); deployer adopt brings packages over",
        )


def make_directory(prepared: Prepared, directory: Path) -> None:
    """Make the directory of the backups for the user that writes there. Raises ConflictError."""
    uid, gid = owner(prepared)
    try:
        if not directory.exists():
            directory.mkdir(parents=True, mode=0o700)
            if (directory.stat().st_uid, directory.stat().st_gid) != (uid, gid):
                os.chown(directory, uid, gid)
        if directory.stat().st_uid != uid:
            raise PermissionError(1, f"it belongs to uid {directory.stat().st_uid}, and the server runs as uid {uid}")
    except OSError as error:
        raise ConflictError(
            f"{directory} can't be used: {error.strerror}",
            hint=f"sudo install -d -m 0700 -o {uid} -g {gid} {directory}",
        ) from None


def _write_incoming(prepared: Prepared, where: Place) -> None:
    """Leave for the backup what only this host knows: the profile and the secrets. Raises ConflictError."""
    from deployer.operations.secrets import encrypted

    applied = read_applied(prepared.plan.name)
    said = {
        "deployment": prepared.plan.name,
        "profile": asdict(applied)["profile"] if applied else {},
        "secrets": encrypted(prepared, where.settings.recipient),
    }
    path = where.directory / "incoming.json"
    try:
        untrusted.replace(where.directory, path.name, json.dumps(said).encode())
    except (OSError, untrusted.Untrusted) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConflictError(f"{path} can't be written: {why}", hint="run it as its owner") from None


def _copy(where: Place, backup: str, ui: UI) -> None:
    """Copy the backups to the repository of the profile. Raises VerificationError."""
    try:
        with ui.working("backup", f"copying {where.directory}"):
            backup_remote.copy_to(where.settings.remote, where.directory)
    except DeployerError as error:
        raise VerificationError(
            f"the backup {backup} is complete in {where.directory}, but was not copied: {error.message}",
            hint=error.hint,
            details=error.details,
        ) from None
    ui.step("backup", "copied to backup.remote")


def _run_after(where: Place, backup: str) -> None:
    """Run the command of the profile that follows a backup. Raises VerificationError when it fails."""
    words = [
        word.replace("{directory}", str(where.directory)).replace("{name}", backup) for word in where.settings.after
    ]
    if words:
        done = Runner().run(words, timeout=24 * 3600.0)
        if done.returncode:
            raise VerificationError(
                f"backup.after: {words[0]} ended with exit code {done.returncode}",
                hint=f"run it by hand; the backup {backup} is complete in {where.directory}",
                details=tuple(done.stderr.splitlines()[-5:]),
            )
