"""Files of a cluster for other tools, and a directory of them that can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import Refused, UsageError
from deployer.files import replacing, writable

if TYPE_CHECKING:
    from deployer.profile.load import Loaded

HEADER = "# Made by deployer render. It is replaced when that runs again.\n"
"""First line of each file in a directory, by which a later run knows its own."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """``engine``: what the files are for. ``text``: of one file; ``files``: by their paths in a directory."""

    engine: str = "kubernetes"
    text: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def rendered(loaded: Loaded, name: str, form: str) -> Rendered:
    """What a profile is for ``form``. Raises DeployerError for what can't be carried there."""
    from deployer.clusters.base import Identity, Wanted
    from deployer.clusters.kubernetes import formats
    from deployer.clusters.kubernetes.manifests.checks import check, warnings
    from deployer.container_files import commented
    from deployer.image import reference
    from deployer.operations.cluster import places
    from deployer.operations.cluster.image import build_of

    profile = loaded.profile
    places.check(profile)
    image = profile.cluster.image or reference(profile.server.version)
    wanted = Wanted(
        name=name,
        profile=profile,
        profile_name=loaded.name,
        image=image,
        identity=Identity(),
        build=build_of(profile),
    )
    if form == "stack":
        from deployer.clusters.swarm import checks, stack

        checks.check(wanted)
        return Rendered(engine="swarm", text=stack.by_hand(wanted), warnings=checks.warnings_by_hand(wanted))
    check(wanted)
    said = warnings(wanted)
    if not profile.cluster.image:
        said = (*said, f"cluster.image is not set: the nodes must have {image}")
    match form:
        case "kustomize":
            return Rendered(files=formats.kustomize(wanted), warnings=said)
        case "helm":
            return Rendered(files=formats.helm(wanted), warnings=said)
        case _:
            header = (f"The cluster {name!r} of the profile {loaded.name!r}.", *formats.secret_by_hand(wanted))
            return Rendered(text=commented(header, formats.kubernetes(wanted)), warnings=said)


def write(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Write ``files`` below ``directory``, and remove those of an earlier run that are not among them.

    Raises Refused before any effect where a file is not of an earlier run, ConflictError when one can't be written.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"--output {directory} is not a directory", hint="name another one")
    wanted = {directory / name: HEADER + text for name, text in files.items()}
    for path in wanted:
        if path.is_symlink() or (path.exists() and not _ours(path)):
            raise Refused(f"{path} was not made by deployer render", hint="move it away, or choose another --output")
    for path, text in wanted.items():
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as stream:
                stream.write(text.encode())
    for path in {found for folder in {one.parent for one in wanted} for found in folder.glob("*.yaml")} - wanted.keys():
        if not path.is_symlink() and _ours(path):
            with writable(path):
                path.unlink()
    return sorted(wanted)


def _ours(path: Path) -> bool:
    with writable(path), path.open("rb") as stream:
        return stream.readline(200) == HEADER.encode()
