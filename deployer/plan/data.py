"""Choose the place and the owner of the data, and refuse unusable directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import ConflictError, DeployerError, Refused
from deployer.plan.facts import Content, DataFacts, Facts, Recorded
from deployer.profile.places import DATA_CHOICES
from deployer.protocol import parse_size
from deployer.spec import Container

if TYPE_CHECKING:
    from deployer.profile.models import Profile

CONTAINER_UID = 3141
"""The owner of the data directory when root deploys. Not root, and no uid that a distribution uses."""
# Directories of the system. Directories below them are allowed.
_SACRED = frozenset(
    Path(p)
    for p in [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108 - a path to refuse
        "/usr",
        "/usr/lib",
        "/usr/local",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/tmp",  # noqa: S108 - a path to refuse
    ]
)
_KERNEL = (Path("/proc"), Path("/sys"), Path("/dev"), Path("/run/systemd"))


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """The place of the data. ``kind``: bind or volume. ``create``: make it; ``tighten``: set owner and mode 0700."""

    kind: str
    source: str
    uid: int = 0
    gid: int = 0
    create: bool = False
    tighten: bool = False
    begin: bool = False
    """The server is to begin a new index there."""
    mark: bool = False
    """Leave the mark that allows our own server to begin one: without it an empty directory is a disk not mounted."""


def data_path(choice: str, *, name: str, home: Path, uid: int) -> Path | None:
    """The directory of ``data: choice`` for the deployment ``name``; ``None`` for a volume.

    A deployment with another name than the default gets a directory of its own beside that of a short name.
    """
    if choice.startswith("volume:"):
        return None
    seat = DATA_CHOICES.get(choice)
    text = seat.format(uid=uid) if seat else choice
    path = home / text[2:] if text.startswith("~/") else Path(text)
    return path.with_name(f"{path.name}-{name}") if seat and name != "devpi" else path


def plan_data(profile: Profile, facts: Facts, *, moving: bool = False) -> DataPlan:
    """Choose the place. ``moving``: a copy of the data comes there, and no new index.

    Raises Refused, ConflictError when it is unusable or belongs to another user.
    """
    if facts.data is None:
        if not facts.engine.features.volumes:
            raise ConflictError(
                f"data: {profile.data} needs a container engine, and {facts.engine.name} has no volumes",
                hint="choose a directory with --data home or --data PATH",
            )
        absent = facts.volume_absent
        return DataPlan(kind="volume", source=profile.data.removeprefix("volume:"), create=absent, begin=absent)
    data = facts.data
    minimum = parse_size(profile.server.min_free) if profile.server.min_free else 0
    if problem := _data_problem(data, facts, minimum=minimum):
        raise problem
    uid, gid = _data_owner(profile, facts)
    absent = data.content is Content.ABSENT
    if not absent and not _usable_by(data, facts, uid):
        wrong = f"{data.path} belongs to uid {data.uid}, and the server runs as uid {uid}"
        raise ConflictError(wrong, hint=f"sudo chown -R {uid}:{gid} {data.path}")
    check_strangers(data, uid=uid, gid=gid)
    begin = absent or data.content is Content.EMPTY or data.bare
    return DataPlan(
        kind="bind",
        source=str(data.path),
        uid=uid,
        gid=gid,
        create=absent,
        begin=begin,
        mark=begin and not moving and not profile.image.ref,
        tighten=not absent and (bool(data.mode & 0o077) or data.uid != uid),
    )


def _usable_by(data: DataFacts, facts: Facts, uid: int) -> bool:
    # Root gives its own empty directory to the server, but never existing files.
    return data.uid == uid or (facts.uid == 0 and data.uid == 0 and data.content is Content.EMPTY)


def _data_owner(profile: Profile, facts: Facts) -> tuple[int, int]:
    """The uid and gid that must own the data directory on the host."""
    if not facts.engine.features.containers or facts.uid != 0 or facts.engine.rootless:
        return facts.uid, facts.gid
    if profile.image.user:
        uid, _, gid = profile.image.user.partition(":")
        return int(uid), int(gid)
    data = facts.data
    if data is not None and data.content is Content.DEVPI and data.uid != 0:
        return data.uid, data.gid
    return CONTAINER_UID, CONTAINER_UID


def _data_problem(data: DataFacts, facts: Facts, *, minimum: int) -> DeployerError | None:
    """Why a directory can't hold the data; the most important reason first."""
    path = data.path
    other = "choose another directory with --data PATH"
    if path in _SACRED or path == facts.home or any(path.is_relative_to(top) for top in _KERNEL):
        return Refused(f"{path} is a system or home directory", hint=other)
    if data.symlink_to is not None:
        return Refused(f"{path} is a symbolic link to {data.symlink_to}", hint=f"--data {data.symlink_to}")
    if data.within is not None:
        return Refused(f"{path} is inside {data.within}, the data directory of another server", hint=other)
    match data.content:
        case Content.NOT_A_DIRECTORY:
            return ConflictError(f"{path} is not a directory", hint=other)
        case Content.UNREADABLE:
            return ConflictError(f"{path} belongs to uid {data.uid} and is not readable", hint=other)
        case Content.FOREIGN:
            return Refused(f"{path} holds files of other programs; nothing was changed", hint=other)
        case Content.ABSENT if not data.parent_writable:
            return ConflictError(
                f"{path} can't be created: uid {facts.uid} can't write to {data.parent}",
                hint=f"--data home, or once: sudo install -d -m 0700 -o {facts.uid} -g {facts.gid} {path}",
            )
        case _:
            pass
    if data.read_only:
        return Refused(f"the file system of {path} is mounted read-only", hint=other)
    if data.free_bytes < minimum:
        have, want = data.free_bytes >> 20, minimum >> 20
        return Refused(
            f"{path} has {have} MiB free, and needs at least {want} MiB",
            hint="free disk space, or lower server.min_free",
        )
    if data.free_inodes < 1000:
        return Refused(f"{path} has only {data.free_inodes} free inodes", hint="remove files, or " + other)
    return None


def check_volume_kept(recorded: Recorded | None, volume: str, *, absent: bool) -> None:
    """Raise ConflictError when the recorded volume is gone. ``volume``: the name of the one that is planned."""
    if recorded is not None and absent and recorded.source == volume:
        raise ConflictError(
            f"the volume {volume} of this deployment is gone (index {recorded.uuid})",
            hint="restore it; to begin with an empty index: deployer up --new-data",
        )


def check_kept(recorded: Recorded | None, data: DataFacts | None) -> None:
    """Raise ConflictError when the recorded data is gone from its directory, or other data is in its place.

    Without this a disk that is not mounted would become a new, empty index.
    """
    if recorded is None or data is None or not recorded.uuid or recorded.source != str(data.path):
        return
    path = data.path
    gone = data.content in (Content.ABSENT, Content.EMPTY) or (data.content is Content.DEVPI and data.bare)
    other = bool(data.uuid) and data.uuid != recorded.uuid
    if recorded.upgrading and (gone or other):
        raise ConflictError(
            f"the upgrade to devpi-server {recorded.upgrading} was interrupted; its data is in {path}",
            hint=f"run deployer upgrade --to {recorded.upgrading}; or go back: deployer rollback",
        )
    if other and data.uuid == recorded.former:
        raise ConflictError(
            f"a rollback was interrupted; the data of before the upgrade is in {path}", hint="run deployer rollback"
        )
    if gone:
        raise ConflictError(
            f"the data of this deployment is gone from {path} (index {recorded.uuid})",
            hint="mount its disk, or restore it there; to begin with an empty index: deployer up --new-data",
        )
    if other:
        raise ConflictError(
            f"{path} holds the index {data.uuid}, and this deployment had {recorded.uuid}",
            hint="put its own data back; to go on with what is there: deployer up --new-data",
        )


def check_strangers(data: DataFacts, *, uid: int, gid: int) -> None:
    """Raise ConflictError when files in the directory belong to another user than the server's: restored by root."""
    others = {path: owner for path, owner in data.strangers.items() if owner != uid}
    if others:
        path, owner = next(iter(others.items()))
        raise ConflictError(
            f"{path} belongs to uid {owner}, and the server runs as uid {uid}",
            hint=f"sudo chown -R {uid}:{gid} {data.path}",
        )


def check_place(current: Container | None, data: DataPlan, *, choice: str) -> None:
    """Raise Refused when the running deployment has its data elsewhere: a new place would start empty."""
    held = next((mount.source for mount in current.mounts if not mount.read_only), "") if current else ""
    if held and held != data.source:
        raise Refused(
            f"the deployment keeps its data in {held}, not in {data.source}",
            hint=f"--data {held}; to move the data: deployer move --data {choice}; to start empty: deployer down",
        )
