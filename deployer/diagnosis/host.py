"""Checks of this host: engine, image, data, disk space, leftovers of an interrupted run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployer.diagnosis import Check, Fix, failure, ok, size, warning
from deployer.plan import Plan
from deployer.plan.facts import Facts
from deployer.spec import LABEL_BUILD, EngineInfo, EngineName, Image

ROOM = 1 << 30
"""Free bytes below which the disk is soon full."""


@dataclass(frozen=True, kw_only=True)
class StateFacts:
    """The state directory: its permission bits (``None``: it does not exist yet), and whether it is writable."""

    path: Path
    mode: int | None
    uid: int
    usable: bool


def engine(info: EngineInfo, *, passed_over: tuple[tuple[EngineName, str], ...], uid: int) -> Iterator[Check]:
    why = "; ".join(f"{name}: {reason}" for name, reason in passed_over)
    yield ok("engine", f"{info.name} {info.version} through {info.how}" + (f" ({why})" if why else ""))
    if not info.features.containers:
        yield warning(
            "limits",
            "a process has no memory limit, no read-only root and no user of its own",
            cure="install docker, podman or nerdctl for a hardened container",
        )
        return
    how = "rootless" if info.rootless else "as root" if uid == 0 else f"uid {uid} may use it, and so may become root"
    yield ok("access", how)


def state(facts: StateFacts, *, uid: int) -> Check:
    """The directory of the lock and the passwords."""
    if not facts.usable:
        return failure(
            "state",
            f"{facts.path} can't be written by uid {uid}",
            cure=f"chown {uid} {facts.path}, or set DEPLOYER_STATE_DIR to another directory",
        )
    if facts.mode is not None and facts.mode & 0o077:
        return warning(
            "state",
            f"{facts.path} is open to others ({facts.mode:04o})",
            cure=f"chmod 0700 {facts.path}",
            fix=Fix.CLOSE_STATE if facts.uid == uid else None,
            target=str(facts.path),
        )
    return ok("state", f"{facts.path}" + ("" if facts.mode is not None else " (made when it is needed)"))


def image(plan: Plan, found: Image | None, *, base: Image | None, base_ref: str) -> Check:
    """The server's image, or the base image that it would be built on."""
    wanted = plan.image
    assert wanted is not None  # noqa: S101 - asked only of engines that have images
    if found is not None and (not wanted.own or found.labels.get(LABEL_BUILD) == wanted.build):
        if wanted.digest and wanted.digest != found.id and not any(d.endswith(wanted.digest) for d in found.digests):
            return failure(
                "image", f"{wanted.ref} is {found.id}, not the pinned {wanted.digest}", cure="see image.digest"
            )
        return ok("image", f"{wanted.ref} {found.id[:19]}")
    if not wanted.own:
        return warning("image", f"{wanted.ref} is not here, up pulls it", cure=f"{plan.engine.name} pull {wanted.ref}")
    what = "is not here, up builds it" if found is None else "is outdated, up builds it again"
    if base is None:
        return warning(
            "image",
            f"{wanted.ref} {what} on {base_ref}, which is not here either and would be pulled",
            cure="without a registry: deployer image build --base-image REF (a local image)",
        )
    return ok("image", f"{wanted.ref} {what} on {base_ref}")


def data(plan: Plan, facts: Facts) -> Iterator[Check]:
    """The data directory and its free space; the plan has already refused an unusable one."""
    if facts.data is None:
        yield ok("data", f"volume {plan.data.source}")
        return
    found = facts.data
    if plan.data.tighten and found.mode & 0o077 and found.uid in (facts.uid, plan.data.uid):
        yield warning(
            "data",
            f"{found.path} is open to others ({found.mode:04o})",
            cure=f"chmod 0700 {found.path}",
            fix=Fix.CLOSE_DATA,
            target=str(found.path),
        )
    else:
        yield ok("data", f"{found.path}: {found.content}, of uid {plan.data.uid}")
    free = f"{size(found.free_bytes)} and {found.free_inodes} files are free at {found.path}"
    if found.free_bytes < ROOM:
        yield warning("space", free, cure="free some space there, or move the data with --data PATH")
    else:
        yield ok("space", free)


def port(plan: Plan, facts: Facts) -> Check:
    running = facts.current is not None and facts.current.ours
    return ok("port", f"{plan.url} is {'ours' if running else 'free'}")


def plugins(named: Sequence[str], *, absent: Sequence[str], unfit: Sequence[str]) -> Check:
    """The plugins of the profile, whose lock the plan has found right. ``absent``, ``unfit``: of a process."""
    if absent:
        return failure("plugins", f"not installed: {', '.join(absent)}", cure="deployer up")
    if unfit:
        return failure("plugins", "; ".join(unfit), cure="deployer plugins lock, then deployer up")
    return ok("plugins", ", ".join(named))


def left_over(name: str) -> Check:
    """A temporary container of a killed run."""
    return warning(
        "left over",
        f"{name} is a temporary container of a killed run",
        cure="deployer doctor --fix",
        fix=Fix.REMOVE_LEFT_OVER,
        target=name,
    )
