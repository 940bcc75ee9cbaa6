"""Create a bundle: what a deployment needs on a machine without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from deployer.bundle import archive, manifest, signature
from deployer.bundle.archive import Target, blob
from deployer.bundle.manifest import File, Manifest
from deployer.deployment.session import Session
from deployer.devpi.packages import PackageApi
from deployer.diagnosis import size
from deployer.distribution import version_of
from deployer.errors import VerificationError
from deployer.host.runner import Runner
from deployer.operations.bundle_parts import as_yaml, download_wheels, profile_for_there
from deployer.operations.contents import Contents, contents
from deployer.selection.targets import Target as Place
from deployer.selection.wanted import LockedFile, Wanted

if TYPE_CHECKING:
    from deployer.ui.output import UI


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a bundle should carry.

    ``wanted``: the releases of lock files; None for every stored file. ``since``: what the other side has.
    ``image``, ``wheels``: whether those go along. ``pythons``: versions that the wheels are for, besides this one.
    ``profile``: text of the profile for the other side; empty for one like this server's. ``lock``: of its plugins.
    ``key``: that signs.
    """

    indexes: Sequence[str] = ()
    wanted: Sequence[Wanted] | None = None
    locks: Sequence[Path] = ()
    since: Manifest | None = None
    image: bool = True
    wheels: bool = True
    pythons: Sequence[str] = ()
    profile: str = ""
    lock: str = ""
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Created:
    """``kept``: files that an interrupted run had written."""

    manifest: Manifest
    bytes: int
    kept: int


def create(session: Session, path: Path, wish: Wish, *, directory: bool, python: str, ui: UI) -> Created:
    """Write the bundle ``path``, a tar file or a ``directory``. The session is with a deployment.

    ``python``: version of this Python. An interrupted run goes on where it ended. Raises ConflictError for an existing
    file, VerificationError when a release of a lock file is not stored here.
    """
    assert session.deployment is not None  # noqa: S101 - narrowed by the caller
    archive.refuse_existing(path, directory=directory)
    sign = signer(wish.key)
    topology = session.api.topology()
    with ui.working("contents", "listing stored files"):
        stored = contents(session, topology, wish.indexes or None)
    whole = stored.manifest if wish.wanted is None else selected(stored.manifest, wish, python=python)
    wheels = wish.wheels and not (wish.since and wish.since.deployer == whole.deployer)
    whole = replace(whole, image=whole.image if wish.image else None)
    due = manifest.without(whole, wish.since) if wish.since else manifest.only(whole, whole.files)
    profile = wish.profile or as_yaml(
        profile_for_there(
            topology,
            session.deployment.applied.profile if session.deployment.applied else {},
            major=str(session.api.codec.major),
        )
    )
    with TemporaryDirectory(prefix="deployer-bundle-") as name:
        scratch = Path(name)
        if wheels:
            without_engine = not wish.image or stored.manifest.image is None
            server = "server7" if session.api.codec.major == 7 else "server"
            extras = [*([server] if without_engine else []), *(["sign"] if sign else [])]
            with ui.working("wheels", "downloading deployer's own with pip"):
                download_wheels(scratch, extras=extras, pythons=wish.pythons, runner=Runner())
        parts = tuple(sorted(scratch.glob("*.whl")))
        if directory:
            path.mkdir(exist_ok=True)
        with ui.working("bundle", str(path)) as progress:
            done = write(session, path, due, stored, parts, profile, sign, progress, lock=wish.lock)
    ui.step("bundle", f"{path}: {len(done.manifest.files)} files, {size(done.bytes)}")
    return done


def signer(key: Path | None) -> Callable[[bytes], str] | None:
    """What signs with the private key in a file. Raises UsageError."""
    if key is None:
        return None
    private = signature.private_key(key)
    return lambda message: signature.sign(message, private)


def selected(stored: Manifest, wish: Wish, *, python: str) -> Manifest:
    """The files that the lock files allow. Raises VerificationError when a release has none."""
    by_release = {(one.project, one.version): one for one in wish.wanted or ()}
    files, found = choose(stored.files, by_release)
    here = Place(python).environment
    lacking = sorted(
        f"{one.project}=={one.version}" for key, one in by_release.items() if key not in found and one.applies(here)
    )
    if lacking:
        words = " ".join(f"-r {path}" for path in wish.locks)
        raise VerificationError(
            f"{lacking[0]} is not stored here",
            hint=f"deployer warm {words}",
            details=tuple(f"also: {name}" for name in lacking[1:]),
        )
    return manifest.only(stored, files)


def choose(
    files: Sequence[File], by_release: Mapping[tuple[str, str], Wanted]
) -> tuple[list[File], set[tuple[str, str]]]:
    """The files that are wanted, and the releases that have one. Pure."""
    releases = {(project, _version(version)): (project, version) for project, version in by_release}
    chosen, found = [], set()
    for file in files:
        version = version_of(file.filename)
        key = releases.get((file.project, version)) if version is not None else None
        if key and by_release[key].allows(LockedFile(name=file.filename, sha256=file.sha256, size=file.size)):
            chosen.append(file)
            found.add(key)
    return chosen, found


def _version(text: str) -> Version | str:
    try:
        return Version(text)
    except InvalidVersion:
        return text


def write(
    session: Session,
    path: Path,
    due: Manifest,
    stored: Contents,
    wheels: Sequence[Path],
    profile: str,
    sign: Callable[[bytes], str] | None,
    progress: Callable[[str], None],
    *,
    lock: str = "",
) -> Created:
    """Write the members of a bundle, each blob once; what an interrupted run has written stays."""
    known = frozenset(due.blobs)
    with archive.writing(path, known.__contains__) as target:
        kept, total, came = len(target.sums), manifest.total(due.files), 0
        for file in due.files:
            address = stored.addresses[file.key]
            if not target.has(file.sha256):
                pieces = session.api.content(address, what=file.filename)
                target.add(blob(file.sha256), file.size, pieces, sha256=file.sha256)
            came += file.size
            progress(f"{size(came)} of {size(total)}")
            _companions(session.api, target, file, address)
        due = replace(due, wheels=tuple(wheel.name for wheel in wheels))
        for wheel in wheels:
            target.add(f"wheels/{wheel.name}", wheel.stat().st_size, _pieces(wheel))
        if due.image is not None:
            progress(f"image {due.image.ref}")
            _image(session, target, due.image.ref)
        locked = ((archive.LOCK, lock),) if lock else ()
        for name, text in ((archive.PROFILE, profile), *locked, (manifest.NAME, due.text)):
            content = text.encode()
            target.add(name, len(content), (content,))
        target.finish(sign)
    return Created(manifest=due, bytes=_size(path), kept=kept)


def _companions(api: PackageApi, target: Target, file: File, address: str) -> None:
    for suffix, digest in file.companions.items():
        if not target.has(digest):
            content = b"".join(api.content(address + suffix, what=file.filename + suffix))
            target.add(blob(digest), len(content), (content,), sha256=digest)


def _image(session: Session, target: Target, ref: str) -> None:
    assert session.deployment is not None and session.deployment.engine.images is not None  # noqa: S101
    with TemporaryDirectory(prefix="deployer-image-") as name:
        saved = Path(name) / archive.IMAGE
        session.deployment.engine.images.save(ref, saved)
        target.add(archive.IMAGE, saved.stat().st_size, _pieces(saved))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(archive.BLOCK):
            yield piece


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
