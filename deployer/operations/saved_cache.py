"""Save what a job needs of a server's cache in a directory, and give it to the server of the next job.

The directory is a bundle without image, wheels and uploads: verified by the same code, and never unpacked.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from deployer.bundle import archive, manifest
from deployer.bundle.archive import blob
from deployer.bundle.manifest import File, Manifest
from deployer.deployment.session import Session
from deployer.devpi.packages import NO_ORDERS
from deployer.diagnosis import size
from deployer.errors import ConflictError, DeployerError, NotReadyError, UsageError, VerificationError
from deployer.operations import bundle, bundle_load
from deployer.operations.contents import contents
from deployer.operations.warm.index import Index, NotFetched
from deployer.operations.warm.threads import threads
from deployer.protocol import COMPANIONS, parsed
from deployer.selection.wanted import Wanted

if TYPE_CHECKING:
    from deployer.ui.output import UI

PROFILE = "extends: default\n"
"""A bundle has the profile of its server; a cache belongs to any."""
LOG_DELAY = 1.3
"""Seconds until all lines of the access log are written."""
_POLL = 0.05
PAGES = 16
"""Pages that are asked for at once."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """``changed``: whether the directory was written. ``sha256``: of the names and contents, for a cache key.

    ``dropped``: number of stored files that the job does not need. ``too_large``: files that exceed the size.
    ``missing``: releases of lock files of which no file is stored.
    """

    files: tuple[File, ...]
    bytes: int
    changed: bool
    sha256: str
    dropped: int
    too_large: tuple[File, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Restored:
    """``same``: number of files that were here. ``skipped``: lines, each a conflict with what is here."""

    restored: tuple[File, ...] = ()
    same: int = 0
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return manifest.total(self.restored)


def save(session: Session, directory: Path, *, wanted: Sequence[Wanted] | None, most: int | None, ui: UI) -> Saved:
    """Write the files that a job needs into ``directory``, and remove all others that a former save has left there.

    ``wanted``: the releases of lock files; None for what clients have asked for. ``most``: bytes. Raises ConflictError
    for a directory with files that are not ours.
    """
    former = _former(directory)
    topology = session.api.topology()
    mirrors = [name for name, index in topology.indexes.items() if index.type == "mirror"]
    with ui.working("contents", "listing cached files"):
        stored = contents(session, topology, mirrors)
        if wanted is None:
            needed = asked_for(stored.manifest.files, _requested(session, stored.manifest.files))
            missing: tuple[str, ...] = ()
        else:
            needed, missing = locked(stored.manifest.files, wanted)
    files, too_large = within(needed, most)
    due = replace(manifest.only(stored.manifest, files), image=None, wheels=())
    changed = former is None or _identity(former) != _identity(due)
    if changed:
        directory.mkdir(parents=True, exist_ok=True)
        archive.reopen(directory)
        with ui.working("cache", str(directory)) as progress:
            bundle.write(session, directory, due, stored, (), PROFILE, None, progress)
    ui.step("cache", f"{directory}: {len(files)} files, {size(manifest.total(files))}")
    return Saved(
        files=tuple(files),
        bytes=manifest.total(files),
        changed=changed,
        sha256=hashlib.sha256(repr(_identity(due)).encode()).hexdigest(),
        dropped=len(stored.manifest.files) - len(needed),
        too_large=tuple(too_large),
        missing=missing,
    )


def restore(session: Session, directory: Path, ui: UI, *, pages_of: str = "") -> Restored:
    """Give the server the files in ``directory`` that it lacks. What can't be restored is a warning, never an error.

    ``pages_of``: an index whose pages of these projects the server then fetches, all at once.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        ui.step("cache", f"{directory}: empty")
        return Restored()
    try:
        opened = bundle_load.read(directory)
        told = opened.manifest
        topology = session.api.topology()
        here = contents(session, topology, [name for name in told.indexes if name in topology.indexes]).manifest
        new, same, skipped = comparison(told, here)
        bundle_load.verify(opened, {digest for file in new for digest in map(blob, file.blobs)}, ui)
    except (VerificationError, UsageError) as error:
        return Restored(warnings=(f"nothing restored: {error.message}",))
    done, failed = _keep_all(session, opened, new, ui)
    if pages_of:
        _fetch_pages(session, pages_of, sorted({file.project for file in told.files}), ui)
    lines = (*skipped, *failed)
    ui.step("cache", f"{directory}: {len(done)} files restored, {same} were here")
    return Restored(
        restored=tuple(done),
        same=same,
        skipped=lines,
        warnings=(f"{len(lines)} not restored; first: {lines[0]}",) if lines else (),
    )


def _keep_all(
    session: Session, opened: bundle_load.Opened, files: Sequence[File], ui: UI
) -> tuple[list[File], list[str]]:
    assert session.deployment is not None  # noqa: S101 - it was connected by its name
    if not files:
        return [], []
    key = session.deployment.proof_key(otherwise=NO_ORDERS)
    session.login()
    done: list[File] = []
    failed: list[str] = []
    with ui.working("cache", f"restoring {len(files)} files") as progress:
        for number, file in enumerate(files):
            try:
                bundle_load.keep(session, opened, file, key)
                done.append(file)
            except DeployerError as error:
                failed.append(f"{file.index}/{file.filename}: {error.message}")
            progress(f"{number + 1} of {len(files)}")
    return done, failed


def _fetch_pages(session: Session, index: str, projects: Sequence[str], ui: UI) -> None:
    """Have the server fetch pages. One that does not come is left to the client that wants it."""
    asked = Index(session.api.url, index)

    def fetch(project: str) -> None:
        with suppress(NotFetched, NotReadyError):
            asked.page(project)

    with ui.working("pages", f"asking for {len(projects)}"), threads(asked, PAGES) as each:
        each(fetch, projects)
    ui.step("pages", f"{len(projects)} projects of {index}")


def comparison(saved: Manifest, here: Manifest) -> tuple[list[File], int, list[str]]:
    """The saved files that are new here, the number of those that are here, and what stands against others. Pure.

    An index that is not here, is no mirror or mirrors another upstream takes none of its files.
    """
    new: list[File] = []
    same = 0
    lines: list[str] = []
    for name, index in saved.indexes.items():
        if not index.mirror:
            lines.append(f"{name} is no mirror")
            continue
        found = manifest.compare(manifest.named(saved, {name}), here)
        lines += found.conflicts
        if not manifest.against(name, index, here.indexes):
            new += found.new
            same += len(found.same)
    return new, same, lines


def locked(files: Sequence[File], wanted: Sequence[Wanted]) -> tuple[list[File], tuple[str, ...]]:
    """The files that lock files allow, and the releases without one. Pure."""
    by_release = {(one.project, one.version): one for one in wanted}
    chosen, found = bundle.choose(files, by_release)
    return chosen, tuple(sorted(f"{project}=={version}" for project, version in by_release.keys() - found))


def asked_for(files: Sequence[File], names: frozenset[str] | None) -> list[File]:
    """The files with these names; all of them if requests are not logged (None). Pure."""
    return [file for file in files if names is None or file.filename in names]


def within(files: Sequence[File], most: int | None) -> tuple[list[File], list[File]]:
    """The files that have room in ``most`` bytes, the smallest first, and the others. Pure.

    Small ones first: each file that is restored saves a request, and the small ones are the most requests for a byte.
    """
    if most is None:
        return list(files), []
    kept: set[str] = set()
    total = 0
    for file in sorted(files, key=lambda one: (one.size, one.filename)):
        if file.sha256 not in kept and total + file.size <= most:
            kept.add(file.sha256)
            total += file.size
    return [one for one in files if one.sha256 in kept], [one for one in files if one.sha256 not in kept]


def names_in(lines: Iterable[str]) -> frozenset[str]:
    """The names of the files that an access log shows as sent, metadata counting for its file. Pure."""
    found = set()
    for line in lines:
        try:
            told = parsed(line)
            sent, name = str(told["status"])[:1] in "23", unquote(str(told["path"]).rpartition("/")[2])
        except (ValueError, TypeError, KeyError):
            continue  # the first line of a tail is cut, and the last one may be
        if sent:
            found.add(next((name.removesuffix(suffix) for suffix in COMPANIONS if name.endswith(suffix)), name))
    return frozenset(found)


def _requested(session: Session, files: Sequence[File]) -> frozenset[str] | None:
    """The names that clients have asked for; None without an access log.

    Each of nginx's workers writes its lines within a second.
    """
    names = {file.filename for file in files}
    complete = time.monotonic() + LOG_DELAY
    while True:
        lines = _log(session)
        found = names_in(lines)
        if names <= found or time.monotonic() > complete:
            return found if lines else None
        time.sleep(_POLL)


def _log(session: Session) -> tuple[str, ...]:
    assert session.deployment is not None  # noqa: S101 - it was connected by its name
    place = session.deployment.server_dir
    return place.access_log() if place is not None else ()


def _identity(told: Manifest) -> list[tuple[str, str, str]]:
    return sorted((file.index, file.filename, file.sha256) for file in told.files)


def _former(directory: Path) -> Manifest | None:
    """The manifest of what a former save has written whole; None when the directory is to be written.

    Raises ConflictError when it has anything that no save writes.
    """
    if not directory.exists() or (
        directory.is_dir() and (archive.is_unfinished(directory) or not any(directory.iterdir()))
    ):
        return None
    try:
        return bundle_load.read(directory).manifest
    except (VerificationError, UsageError) as error:
        raise ConflictError(
            f"{directory} is no saved cache: {error.message}", hint="name an empty directory, or remove this one"
        ) from None
