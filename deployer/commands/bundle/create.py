"""``deployer bundle create``: write what a machine without a network needs into one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.bundle.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    out: Annotated[str, Argument(metavar="OUT", help="New tar file; a directory if it ends with a slash.")]
    requirements: Annotated[
        list[Path] | None,
        Option("--requirements", "-r", metavar="FILE", help="Only the releases of this lock file; may be repeated."),
    ] = None
    index: Annotated[
        list[str] | None, Option("--index", metavar="USER/NAME", help="Only files of this index; may be repeated.")
    ] = None
    since: Annotated[
        Path | None, Option("--since", metavar="MANIFEST", help="Only what this manifest of the other side lacks.")
    ] = None
    sign: Annotated[Path | None, Option("--sign", metavar="KEY", help="Sign with this private Ed25519 SSH key.")] = None
    no_image: Annotated[
        bool, Option("--no-image", help="For a machine without an engine: wheels of the server, not its image.")
    ] = False
    no_wheels: Annotated[bool, Option("--no-wheels", help="Leave out the wheels of deployer.")] = False
    python: Annotated[
        list[str] | None,
        Option("--python", metavar="VERSION", help="Wheels for this Python, too, like 3.12; may be repeated."),
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Write what a machine without a network needs into one file.

    It holds the server's image, or its wheels where no engine runs it, deployer's own wheels, a profile, and all stored
    files or those of lock files. --profile names another profile for the other machine. An interrupted run goes on.
    """
    import platform

    from deployer import selection
    from deployer.deployment.session import connect
    from deployer.operations.bundle import Wish, create
    from deployer.operations.recorded import DEFAULT_PROFILE

    locks = options.requirements or []
    wish = Wish(
        indexes=options.index or (),
        wanted=selection.merged([one for path in locks for one in selection.read(path)]) if locks else None,
        locks=locks,
        since=_since(options.since),
        image=not options.no_image,
        wheels=not options.no_wheels,
        pythons=options.python or (),
        profile="" if options.profile == DEFAULT_PROFILE else _profile(options.profile),
        lock=_lock(options),
        key=options.sign,
    )
    with connect(options.name, engine=options.engine) as session:
        path = Path(options.out)
        directory = options.out.endswith("/") or path.is_dir()
        done = create(session, path, wish, directory=directory, python=platform.python_version(), ui=ui)
    told = done.manifest
    return Result(
        data={
            "path": options.out,
            "files": len(told.files),
            "bytes": done.bytes,
            "kept": done.kept,
            "indexes": sorted(told.indexes),
            "image": told.image.ref if told.image else None,
            "wheels": len(told.wheels),
            "delta": told.delta,
            "signed": options.sign is not None,
        },
        text=options.out,
    )


def _since(path: Path | None) -> Manifest | None:
    from deployer.bundle.manifest import LARGEST, Manifest
    from deployer.errors import UsageError

    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            return Manifest.parse(stream.read(LARGEST), what=str(path))
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="on the other machine: deployer bundle manifest FILE"
        ) from None


def _lock(options: Options) -> str:
    """The lock of the plugins that the server on the other side has."""
    from deployer.deployment.record import read_applied
    from deployer.operations.plugins import lock_of
    from deployer.operations.recorded import DEFAULT_PROFILE, as_deployed
    from deployer.profile.load import load

    applied = read_applied(options.name)
    if options.profile == DEFAULT_PROFILE and not (applied and applied.profile.get("server", {}).get("plugins")):
        return ""
    ref, given = as_deployed(options.profile, options.name, ())
    return lock_of(load(ref, overrides=given), options.name)


def _profile(name: str) -> str:
    """The whole profile, with what it extends. Raises ProfileError."""
    from deployer.operations.bundle_parts import as_yaml
    from deployer.profile.load import load

    return as_yaml(load(name).profile.model_dump(mode="json", exclude_defaults=True))
