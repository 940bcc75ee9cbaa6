"""Restore a backup, on this machine or another one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.deployment.find import Deployment, find
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, Refused
from deployer.files import make_private, write_private
from deployer.host import untrusted
from deployer.host.state_dir import state_dir
from deployer.operations.apply import make_data, undo
from deployer.operations.backup import Place, calling, check_reachable, chosen, owner, secrets_file, trusted
from deployer.operations.once import answer
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.recorded import DEFAULT_PROFILE, as_deployed
from deployer.operations.start import report_rollback
from deployer.operations.up import Outcome, bring_up, have_own_image
from deployer.plan.data import DataPlan
from deployer.profile.load.overrides import Override
from deployer.protocol import Backup, PrivateFile
from deployer.spec import State

if TYPE_CHECKING:
    from deployer.ui.output import UI

AGAIN = "deployer backup restore"
NEW = ".restored"
"""Suffix of the directory that a backup is restored to, beside data that is in its place."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """``kept``: where the data is that was there before; empty when there was none."""

    backup: Backup
    source: str
    kept: str
    outcome: Outcome


def restore(
    profile: str,
    name: str,
    *,
    overrides: Sequence[Override],
    where: Place,
    wanted: str,
    replace_data: bool,
    identity: Path | None,
    clients: bool,
    ui: UI,
) -> Restored:
    """Restore a backup to the place of the profile's data and start the server there. The caller holds the lock.

    ``wanted``: name of the backup. ``replace_data``: data in that place is set aside, and never deleted. ``identity``:
    key of the secrets. A failure rolls back. Raises ConflictError when there is data or a server already.
    """
    backup = chosen(where, wanted)
    ref, all_overrides = profile_of(profile, name, where, backup, overrides)
    prepared = prepare(ref, name, overrides=all_overrides, moving=True, new_data=True)
    deployment = find(name)
    there = _is_there(prepared)
    if (there or deployment is not None) and not replace_data:
        held = f"{prepared.plan.data.source} holds data" if there else f"the deployment {name!r} exists"
        raise ConflictError(held, hint=f"add --replace: {AGAIN} sets the present data aside and keeps it")
    if there and prepared.plan.data.kind == "volume":
        raise ConflictError(
            f"the volume {prepared.plan.data.source} holds data, and a volume can't be set aside",
            hint="restore to a new one: add --data volume:NAME",
        )
    check_reachable(prepared.plan.spec.mounts[0], prepared.facts.engine)
    secrets = _secrets(backup, identity, deployment, ui)
    have_own_image(prepared, ui)
    kept = ""
    with ExitStack() as rollback:
        path = Path(prepared.plan.data.source)
        beside = path.with_name(path.name + NEW)
        fill(prepared, where, backup, beside=beside if there else None, secrets=secrets, rollback=rollback, ui=ui)
        if deployment is not None and deployment.container.state is not State.STOPPED:
            undo(rollback, _restart, deployment, ui)
            deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
        if there:
            kept = str(_swap(path, beside, rollback))
            ui.step("data", f"{kept} (what was in {path} before)")
        again = prepare(ref, name, overrides=all_overrides, moving=True, new_data=True)
        outcome = bring_up(again, ui, rollback, clients=clients)
    return Restored(backup=backup, source=prepared.plan.data.source, kept=kept, outcome=outcome)


def _restart(deployment: Deployment, ui: UI) -> None:
    deployment.engine.start(deployment.name)
    report_rollback(deployment, ui, where="on the former data")


def profile_of(
    profile: str, name: str, where: Place, backup: Backup, own: Sequence[Override]
) -> tuple[str, tuple[Override, ...]]:
    """The profile and its overrides: the command line's, the deployment's, or on another machine the backup's.

    Raises Refused for a backup that another user could have changed: a profile may name files to read, and commands.
    """
    if profile != DEFAULT_PROFILE or read_applied(name) is not None or not backup.profile:
        return as_deployed(profile, name, own)
    path = state_dir(name) / "restored.yaml"
    write_private(path, json.dumps(backup.profile, indent=1) + "\n")  # JSON is YAML
    if not trusted(where, backup):
        raise Refused(
            f"the profile in the backup {backup.name} may have been changed by the user of its server",
            hint=f"read it, then add --profile {path}",
        )
    return str(path), tuple(own)


def _is_there(prepared: Prepared) -> bool:
    """Whether the place holds data, and not just an unfinished restore."""
    data = prepared.plan.data
    if data.begin:
        return False
    if data.kind == "volume":
        return prepared.current is not None
    try:
        return untrusted.read(Path(data.source), PrivateFile.MOVING.relative) is None
    except (OSError, untrusted.Untrusted):
        return True


def _secrets(backup: Backup, identity: Path | None, deployment: Deployment | None, ui: UI) -> Mapping[str, str]:
    """The secrets for the restored data. Without the backup's own, the key that signs logins is the present one."""
    from deployer.operations.secrets import decrypted

    if identity is not None and backup.secrets:
        return decrypted(backup.secrets, identity)
    if backup.secrets:
        ui.warn("the secrets of the backup stay encrypted without --identity FILE")
    ui.note("root gets a new password: deployer secret show root")
    place = deployment.server_dir if deployment else None
    signing = place.read(PrivateFile.SECRET.relative) if place is not None and not place.gone else None
    return {PrivateFile.SECRET: signing} if signing else {}


def fill(
    prepared: Prepared,
    where: Place,
    backup: Backup,
    *,
    beside: Path | None = None,
    secrets: Mapping[str, str],
    rollback: ExitStack,
    ui: UI,
) -> None:
    """Write a backup to the planned place of the data, or to ``beside``; what is made is undone by ``rollback``."""
    data, mount = prepared.plan.data, prepared.plan.spec.mounts[0]
    if beside is not None:
        data = DataPlan(kind="bind", source=str(beside), uid=data.uid, gid=data.gid, create=not beside.exists())
        mount = replace(mount, source=str(beside))
    make_data(prepared.plan.name, replace(data, mark=False), prepared.engine, rollback)
    with _handed_over(prepared, secrets) as directory:
        words = ("--backup", backup.name)
        spec = calling(prepared, "restore", where.directory, mount, words=words, secrets=directory)
        with ui.working("restore", f"{backup.name} to {data.source}"):
            answer(prepared.engine, spec, doing="the restore", again=AGAIN)
    ui.step("restore", f"{data.source}: {backup.name}, {backup.files} files, all compared")


@contextmanager
def _handed_over(prepared: Prepared, secrets: Mapping[str, str]) -> Iterator[Path | None]:
    """A private directory with the secrets, for the run that writes them into the data."""
    if not secrets:
        yield None
        return
    directory = make_private(state_dir(prepared.plan.name) / "secrets")
    try:
        path = secrets_file(directory)
        write_private(path, json.dumps(dict(secrets)))
        if os.geteuid() == 0:
            for one in (directory, path):
                os.chown(one, *owner(prepared))
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _swap(path: Path, beside: Path, rollback: ExitStack) -> Path:
    """Set the data aside and put what was restored in its place; the directory that was set aside."""
    number, kept = 1, path.with_name(f"{path.name}.before-restore-1")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.before-restore-{number}")
    try:
        undo(rollback, kept.rename, path)
        path.rename(kept)
        undo(rollback, path.rename, beside)
        beside.rename(path)
    except OSError as error:
        raise ConflictError(
            f"{path} can't be set aside: {error.strerror}", hint="restore to another directory: add --data PATH"
        ) from None
    return kept
