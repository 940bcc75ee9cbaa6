"""Adopt packages from elsewhere: upload them to a stage, each once, and never over another file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from deployer.deployment.session import Session
from deployer.devpi import distributions
from deployer.devpi.distributions import Distribution
from deployer.devpi.packages import PackageApi
from deployer.devpi.topology import Topology
from deployer.distribution import version_of
from deployer.errors import DeployerError, ServerRefused, UsageError, VerificationError
from deployer.operations.adopt_sources import AT_ONCE, Offer, by_name

if TYPE_CHECKING:
    from deployer.ui.output import UI


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Offers compared with an index. ``conflicts``: lines. ``invalid``: reasons by origin."""

    new: tuple[Offer, ...] = ()
    same: tuple[Offer, ...] = ()
    conflicts: tuple[str, ...] = ()
    invalid: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """``uploaded``: file names; of a dry run, those that would be uploaded. ``bytes``: their size."""

    uploaded: tuple[str, ...]
    bytes: int
    same: tuple[str, ...]
    conflicts: tuple[str, ...]
    invalid: dict[str, str]


def adopt(session: Session, index: str, offers: Sequence[Offer], *, dry_run: bool, ui: UI) -> Adopted:
    """Upload ``offers`` to the stage ``index``, several at once; skip those that are there with the same hash.

    Nothing is uploaded when there is a conflict. What is no distribution is left out, and named. A second run goes on
    where the first one ended. Raises ServerRefused, ConflictError of an upload.
    """
    with TemporaryDirectory(prefix="deployer-adopt-") as directory:
        scratch = Path(directory)
        with ui.working("compare", f"{len(offers)} files with {index}") as progress:
            found = compared(offers, _there(session.api, index, offers), scratch, progress)
            local = [offer for offer in found.new if offer.path is not None]
            read = dict(zip(map(id, local), _read_all(local, scratch), strict=True))
        invalid = dict(found.invalid)
        invalid |= {offer.origin: one for offer in local if isinstance(one := read[id(offer)], str)}
        new = tuple(offer for offer in found.new if offer.origin not in invalid)
        same = tuple(offer.filename for offer in found.same)
        if found.conflicts or dry_run:
            names = tuple(offer.filename for offer in new)
            bytes_ = sum(offer.path.stat().st_size for offer in new if offer.path is not None)
            return Adopted(uploaded=names, bytes=bytes_, same=same, conflicts=found.conflicts, invalid=invalid)
        known = {offer.origin: one for offer in local if isinstance(one := read[id(offer)], Distribution)}
        done = upload_all(session, lambda _offer: index, new, known, scratch, ui) if new else {}
    invalid |= {origin: reason for origin, reason in done.items() if isinstance(reason, str)}
    uploaded = {origin: size for origin, size in done.items() if isinstance(size, int)}
    return Adopted(
        uploaded=tuple(offer.filename for offer in new if offer.origin in uploaded),
        bytes=sum(uploaded.values()),
        same=same,
        conflicts=(),
        invalid=invalid,
    )


def upstreams(topology: Topology) -> tuple[str, ...]:
    """The indexes that hold more than anybody adopts: that of `root/pypi`, and that of this host's pip."""
    from deployer.clients import pip
    from deployer.clients.client import Account
    from deployer.operations.prepare import is_ours

    own = pip.build_settings(pip.read_config(Account.of(dict(os.environ))), ours=is_ours)["index_url"]
    mirror = topology.indexes.get("root/pypi")
    return own, str(mirror.fields.get("mirror_url", "")) if mirror else ""


def _there(api: PackageApi, index: str, offers: Sequence[Offer]) -> dict[str, str]:
    """The files of the offered projects that are on the index, each with its SHA-256."""
    wanted = {project for offer in offers if (project := project_of(offer.filename))}
    known = {str(canonicalize_name(name)): name for name in api.projects(index)} if wanted else {}
    found: dict[str, str] = {}
    for project in sorted(wanted & known.keys()):
        found |= api.uploaded(index, known[project])
    return found


def project_of(filename: str) -> str:
    """The normalised project of a wheel or an sdist; empty for any other file."""
    version = version_of(filename)
    if version is None:
        return ""
    if filename.endswith(".whl"):
        return canonicalize_name(filename.partition("-")[0])
    return canonicalize_name(filename.removesuffix(".zip").removesuffix(".tar.gz").rpartition("-")[0])


def compared(
    offers: Sequence[Offer], there: dict[str, str], scratch: Path, progress: Callable[[str], None] = lambda line: None
) -> Sorted:
    """Compare offers with each other and with what is ``there`` (SHA-256 by file name).

    Only files whose name is taken are read, or fetched where their index does not say the hash.
    """
    new: list[Offer] = []
    same: list[Offer] = []
    conflicts: list[str] = []
    invalid: dict[str, str] = {}
    for filename, named in sorted(by_name(offers).items()):
        if version_of(filename) is None:
            invalid |= {offer.origin: "not the name of a wheel or an sdist" for offer in named}
            continue
        progress(filename)
        try:
            hashes = {offer.origin: offer.digest(scratch) for offer in named} if len(named) > 1 else {}
            if len(set(hashes.values())) > 1:
                conflicts.append(f"{filename} differs: {' and '.join(sorted(hashes))}")
            elif filename not in there:
                new.append(named[0])
            elif named[0].digest(scratch) == there[filename]:
                same.append(named[0])
            else:
                conflicts.append(f"{filename} is on the index with other content ({named[0].origin})")
        except (VerificationError, ServerRefused, OSError) as error:
            invalid |= {offer.origin: str(error) for offer in named}
    return Sorted(new=tuple(new), same=tuple(same), conflicts=tuple(conflicts), invalid=invalid)


def _read_all(offers: Sequence[Offer], scratch: Path) -> list[Distribution | str]:
    with ThreadPoolExecutor(AT_ONCE, "read") as pool:
        return list(pool.map(lambda offer: _read(offer, scratch), offers))


def _read(offer: Offer, scratch: Path) -> Distribution | str:
    """The distribution, or why it is none."""
    try:
        with offer.here(scratch) as path:
            return distributions.read(path)
    except (UsageError, VerificationError) as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)


def upload_all(
    session: Session,
    index: Callable[[Offer], str],
    offers: Sequence[Offer],
    known: Mapping[str, Distribution],
    scratch: Path,
    ui: UI,
) -> dict[str, int | str]:
    """Upload all; the size of each file, or why it was left out, by origin. The first refusal ends it.

    ``index``: where to upload an offer. ``known``: what was read of some of them, by origin.
    """
    password = session.password()
    local, stack, lock, done = threading.local(), ExitStack(), threading.Lock(), 0
    stopped = threading.Event()

    def api() -> PackageApi:
        found: PackageApi | None = getattr(local, "api", None)
        if found is None:
            found = PackageApi(session.api.url)
            with lock:
                stack.enter_context(found)
            found.identity()
            found.login(session.user, password)
            local.api = found
        return found

    def upload(offer: Offer) -> int | str:
        nonlocal done
        if stopped.is_set():
            return "not uploaded: another upload failed"
        try:
            with offer.here(scratch) as path:
                # A hash that its index told was verified when the file was fetched.
                found = known.get(offer.origin) or distributions.read(path, sha256=offer.sha256)
                with path.open("rb") as stream:
                    api().upload(index(offer), found.form, filename=path.name, content=stream)
                size = path.stat().st_size
        except (UsageError, VerificationError) as error:
            return error.message
        except OSError as error:
            return error.strerror or str(error)
        except DeployerError:
            stopped.set()
            raise
        with lock:
            done += 1
            progress(f"{done} of {len(offers)}: {offer.filename}")
        return size

    with (
        stack,
        ui.working("upload", f"{len(offers)} files") as progress,
        ThreadPoolExecutor(AT_ONCE, "upload") as pool,
    ):
        return dict(zip((offer.origin for offer in offers), pool.map(upload, offers), strict=True))
