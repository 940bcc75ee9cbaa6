"""Load a bundle: everything is verified and compared first; then each file is stored whole, or not at all."""

from __future__ import annotations

import base64
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deployer.bundle import archive, manifest, signature
from deployer.bundle.archive import Bundle, blob
from deployer.bundle.manifest import Comparison, File, Manifest
from deployer.deployment.find import Deployment, find
from deployer.deployment.session import Session, connect
from deployer.devpi.packages import NO_ORDERS
from deployer.diagnosis import size
from deployer.engines import detect, open_engine
from deployer.errors import ConflictError, Refused, VerificationError
from deployer.files import write_private
from deployer.host.plugins import lock_file
from deployer.host.state_dir import state_dir
from deployer.operations.adopt import upload_all
from deployer.operations.adopt_sources import Offer
from deployer.operations.contents import contents
from deployer.operations.recorded import as_deployed
from deployer.operations.up import up
from deployer.plan.plugins import OF_PLUGINS
from deployer.profile.load import load as load_profile
from deployer.protocol import KeepRequest, parsed
from deployer.spec import EngineName, State

if TYPE_CHECKING:
    from deployer.profile.load.overrides import Override
    from deployer.ui.output import UI

PROFILE = "bundle.yaml"
"""The profile of the last bundle that was loaded, in the directory of the deployment's records."""
LARGEST_PROFILE = 1 << 20
_MODEST = ("server", "image", "users", "groups", "indexes", "clients")
"""Keys of a profile that say nothing about a host."""
LARGEST_COMPANION = 4 << 20
LARGEST_NAMES = 16 << 20
"""Bytes of the file of an image that names it."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A bundle whose manifest, and signature if it was asked for, are right. ``sums``: SHA-256 by member.

    ``verified``: one of the given keys has signed it.
    """

    bundle: Bundle
    manifest: Manifest
    sums: dict[str, str]
    signed: bool
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """``invalid``: uploads that the other side has and that are no distributions, each with the reason."""

    url: str
    loaded: tuple[File, ...]
    same: int
    invalid: tuple[str, ...]


def read(path: Path, *, key: Path | None = None) -> Opened:
    """Open a bundle and verify its manifest. ``key``: file of public keys, of which one must have signed it.

    Raises VerificationError, UsageError.
    """
    keys = signature.public_keys(key) if key is not None else None
    bundle = Bundle(path)
    signed = archive.SIGNATURE in bundle.members
    if keys is not None:
        if not signed:
            raise VerificationError(f"{path} is not signed", hint="get a signed one, or leave out --verify")
        told = bundle.read(archive.SIGNATURE, most=signature.LARGEST)
        signature.verify(bundle.read(archive.SUMS, most=archive.LARGEST_SUMS), told, keys)
    sums = bundle.sums()
    for name in (manifest.NAME, archive.PROFILE):
        if name not in sums:
            raise VerificationError(f"{path} has no {name}", hint="get the bundle again")
        bundle.check(name, sums[name])
    told_files = Manifest.parse(bundle.read(manifest.NAME, most=manifest.LARGEST), what=f"{path}: {manifest.NAME}")
    _require_members(bundle, sums, told_files)
    return Opened(bundle=bundle, manifest=told_files, sums=sums, signed=signed, verified=keys is not None)


def _require_members(bundle: Bundle, sums: dict[str, str], told: Manifest) -> None:
    """Raises VerificationError unless the bundle has what its manifest names."""
    names = [*map(blob, told.blobs), *(f"wheels/{name}" for name in told.wheels)]
    names += [archive.IMAGE] if told.image else []
    lacking = [name for name in names if name not in sums]
    wrong = [file for file in told.files if bundle.members.get(blob(file.sha256), _NOTHING).size != file.size]
    if lacking or wrong or any(sums[blob(digest)] != digest for digest in told.blobs):
        named = lacking[0] if lacking else wrong[0].filename if wrong else "another checksum in a name"
        raise VerificationError(f"{bundle.path} contradicts itself: {named}", hint="get the bundle again")


_NOTHING = archive.Member("", -1)


def load(
    opened: Opened,
    name: str,
    *,
    overrides: Sequence[Override],
    clients: bool,
    lock_wait: float,
    ui: UI,
) -> Loaded:
    """Load a bundle into the deployment ``name``; start it with the bundle's profile if there is none, or if an earlier
    bundle has started it.

    ``overrides``: of that profile. ``clients``: write client files when it is started. Raises ConflictError before
    any effect when something here has the same name and other content, or when the index of a file is missing.
    """
    deployment, profile = find(name), state_dir(name) / PROFILE
    own = deployment is None or (deployment.applied is not None and deployment.applied.profile_ref == str(profile))
    if not own and overrides:
        ui.warn(f"{name} has a profile of its own: options of `up` change nothing here")
    if deployment is not None and deployment.container.state is State.RUNNING:
        with connect(name) as session:
            found = _compared(session, opened, missing_ok=own)
        due = {blob(digest) for file in found.new for digest in file.blobs}
    elif own:
        due = set(map(blob, opened.manifest.blobs))
    else:
        raise ConflictError(f"{name} does not run", hint="deployer start")
    if own and not opened.verified:
        require_modest(_profile(opened))
    verify(opened, due, ui)
    _image(opened, deployment, overrides, ui)
    if own:
        write_private(profile, _profile(opened))
        _write_lock(opened, lock_file((profile,), name))
        ref, given = as_deployed(str(profile), name, overrides)
        up(ref, name, overrides=given, ui=ui, clients=clients, lock_wait=lock_wait)
    with connect(name) as session:
        return _files(session, opened, ui)


def _profile(opened: Opened) -> str:
    return opened.bundle.read(archive.PROFILE, most=LARGEST_PROFILE).decode("utf-8", "replace")


def _write_lock(opened: Opened, path: Path) -> None:
    """Write the lock of the profile's plugins beside it, or remove that of an earlier bundle."""
    if archive.LOCK in opened.sums:
        write_private(path, opened.bundle.read(archive.LOCK, most=LARGEST_PROFILE).decode("utf-8", "replace"))
    else:
        path.unlink(missing_ok=True)


def require_modest(text: str) -> None:
    """Raises Refused when a profile of unknown origin decides about this host, ProfileError when it is invalid.

    Credentials and files of options can be the output of a command, plugins are code; engine, network and data belong
    to this host.
    """
    with TemporaryDirectory(prefix="deployer-profile-") as directory:
        path = Path(directory) / PROFILE
        path.write_text(text, encoding="utf-8")
        told = load_profile(str(path)).profile
    keys = [key for key in told.model_dump(exclude_defaults=True) if key not in _MODEST]
    keys += [f"indexes.{name}.credentials" for name, index in told.indexes.items() if index.credentials is not None]
    keys += [f"server.{key}" for key in OF_PLUGINS if getattr(told.server, key)]
    if keys:
        raise Refused(
            f"the profile of the bundle sets {', '.join(sorted(keys))}, and nobody has vouched for it",
            hint="verify its signature: --verify KEY",
        )


def _compared(session: Session, opened: Opened, *, missing_ok: bool = False) -> Comparison:
    """Compare with the server. Raises ConflictError with every conflict."""
    told = opened.manifest
    topology = session.api.topology()
    here = contents(session, topology, [index for index in told.indexes if index in topology.indexes])
    found = manifest.compare(told, here.manifest)
    against = [line for line in found.conflicts if not (missing_ok and line.startswith("there is no index "))]
    if against:
        raise ConflictError(
            against[0],
            hint="to take the bundle's file, remove the one here first: deployer package remove",
            details=tuple(f"also: {line}" for line in against[1:]),
        )
    return found


def verify(opened: Opened, due: set[str], ui: UI) -> None:
    """Verify every member that is loaded. Raises VerificationError."""
    names = [name for name in opened.sums if name in due or name in (archive.IMAGE, archive.LOCK)]
    with ui.working("verify", f"{len(names)} members") as progress:
        for number, name in enumerate(names):
            opened.bundle.check(name, opened.sums[name])
            progress(f"{number + 1}")
    ui.step("verify", f"{len(names)} members, {'signed' if opened.signed else 'not signed'}")


def _image(opened: Opened, deployment: Deployment | None, overrides: Sequence[Override], ui: UI) -> None:
    """Load the image into the engine, unless it is there or the engine runs no containers."""
    image = opened.manifest.image
    if image is None:
        return
    wanted = next((str(one.value) for one in overrides if one.key == "engine"), "auto")
    engine = deployment.engine if deployment else None
    if engine is None:
        engine = open_engine(EngineName(wanted)) if wanted != "auto" else detect("auto").engine
    if engine.images is None:
        return
    present = engine.images.find(image.ref)
    if present is not None and present.id == image.id:
        ui.step("image", f"{image.ref} (present)")
        return
    with TemporaryDirectory(prefix="deployer-image-") as directory, ui.working("image", f"loading {image.ref}"):
        saved = Path(directory) / archive.IMAGE
        opened.bundle.extract(archive.IMAGE, saved)
        require_only(saved, image.ref)
        engine.images.load(saved)
    if engine.images.find(image.ref) is None:
        raise VerificationError(f"the image in the bundle is not {image.ref}", hint="create the bundle again")
    ui.step("image", f"{image.ref} (loaded)")


def require_only(saved: Path, ref: str) -> None:
    """Raises VerificationError unless the file of an image names ``ref`` and nothing else.

    An engine gives the images in it the names in it, also those of images that others use.
    """
    names = set()
    try:
        with tarfile.open(saved, "r:") as tar:
            for member in tar:
                if member.name in ("manifest.json", "index.json", "repositories") and member.isreg():
                    stream = tar.extractfile(member)
                    names |= set(_references(member.name, parsed(stream.read(LARGEST_NAMES)) if stream else None))
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, OSError):
        raise VerificationError("image.tar in the bundle is no image", hint="get the bundle again") from None
    others = {name for name in names if name.removeprefix("docker.io/") != ref.removeprefix("docker.io/")}
    if others or not names:
        raise VerificationError(
            f"the image in the bundle is named {', '.join(sorted(others)) or 'nothing'}, not {ref}",
            hint="get the bundle again",
        )


def _references(name: str, told: Any) -> list[str]:
    match name:
        case "manifest.json":
            return [ref for image in told for ref in image["RepoTags"] or ()]
        case "repositories":
            return [f"{repository}:{tag}" for repository, tags in told.items() for tag in tags]
        case _:
            key = "io.containerd.image.name"
            return [one["annotations"][key] for one in told["manifests"] if key in one.get("annotations", {})]


def _files(session: Session, opened: Opened, ui: UI) -> Loaded:
    found = _compared(session, opened)
    assert session.deployment is not None  # noqa: S101 - it was connected by its name
    key = session.deployment.proof_key(otherwise=NO_ORDERS)
    cached, uploads = ([file for file in found.new if bool(file.file) is mirrored] for mirrored in (True, False))
    if cached:
        session.login()
        total, came = manifest.total(cached), 0
        with ui.working("cache", f"loading {len(cached)} files") as progress:
            for file in cached:
                keep(session, opened, file, key)
                came += file.size
                progress(f"{size(came)} of {size(total)}")
    invalid = _upload(session, opened, uploads, ui) if uploads else {}
    done = tuple(file for file in found.new if _origin(file) not in invalid)
    ui.step("files", f"{len(done)} loaded, {len(found.same)} were here")
    lines = tuple(f"{origin}: {reason}" for origin, reason in sorted(invalid.items()))
    return Loaded(url=session.api.url, loaded=done, same=len(found.same), invalid=lines)


def keep(session: Session, opened: Opened, file: File, key: str) -> None:
    """Have the server take a file of a mirror, verified before; the session is logged in. Raises ConflictError."""
    fields = opened.manifest.indexes[file.index].pages.get(file.project, {})
    beside = {
        suffix: base64.b64encode(opened.bundle.read(blob(digest), most=LARGEST_COMPANION)).decode()
        for suffix, digest in file.companions.items()
    }
    wanted = KeepRequest(
        index=file.index,
        project=file.project,
        page={**fields, "files": [file.file]},
        sha256=file.sha256,
        size=file.size,
        companions=beside,
    )
    session.api.keep(wanted, lambda: opened.bundle.pieces(blob(file.sha256)), proof_key=key)


def _origin(file: File) -> str:
    return f"{file.index}/{file.filename}"


def _upload(session: Session, opened: Opened, files: Sequence[File], ui: UI) -> dict[str, str]:
    """Upload as any client does; return the reason for each that is no valid distribution, by its origin."""
    indexes = {_origin(file): file.index for file in files}
    offers = [
        Offer(
            filename=file.filename,
            origin=_origin(file),
            sha256=file.sha256,
            fetch=partial(opened.bundle.extract, blob(file.sha256)),
        )
        for file in files
    ]
    with TemporaryDirectory(prefix="deployer-upload-") as directory:
        done = upload_all(session, lambda offer: indexes[offer.origin], offers, {}, Path(directory), ui)
    return {origin: reason for origin, reason in done.items() if isinstance(reason, str)}
