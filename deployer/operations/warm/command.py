"""What ``deployer warm`` and ``deployer up --warm`` do: for a deployment, and with progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployer.deployment.find import Deployment, require
from deployer.deployment.record import Applied, read_applied
from deployer.deployment.session import connect
from deployer.errors import ConflictError, DeployerError, ProfileError, UsageError
from deployer.operations.recorded import client_index
from deployer.operations.warm import JOBS, Asked, Warmed, Warming, error_of
from deployer.operations.warm.index import Index
from deployer.profile.load.files import available, is_path
from deployer.protocol import Missed, PrivateFile, parsed
from deployer.selection.pages import project_of
from deployer.selection.targets import Target, targets
from deployer.typed import built
from deployer.ui.output import UI

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python that runs deployer."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``deployer warm``."""

    sources: tuple[Path, ...] = ()
    asked: bool = False
    watched: bool = False
    pythons: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    index: str = ""
    top: int = 0
    build_deps: bool = False
    jobs: int = JOBS


def warm(name: str, engine: str, request: Request, ui: UI) -> tuple[str, tuple[Target, ...], Warmed]:
    """Have the deployment ``name`` fetch what ``request`` names; return the index, the targets, and what was found.

    Raises UsageError for options, ConflictError for a server that is offline.
    """
    wanted = targets_of(read_applied(name), request.pythons, request.platforms)
    if not (request.sources or request.asked or request.watched):
        raise UsageError("nothing to fetch is named", hint="deployer warm -r requirements.txt")
    with connect(name, engine=engine) as session:
        deployment = session.deployment
        assert deployment is not None  # noqa: S101 - there is no --url
        if session.identity.offline:
            raise ConflictError("the server is offline: it asks no upstream", hint="deployer offline off")
        sources = (*request.sources, *(watched(deployment) if request.watched else ()))
        asked = missed(deployment) if request.asked else None
    index = Index(deployment.url, request.index or client_index(name))
    require_files(sources)
    with ui.working("warm", f"{index.name} for {', '.join(target.text for target in wanted)}") as tell:
        warming = Warming(
            index=index,
            targets=wanted,
            top=request.top,
            build_deps=request.build_deps,
            jobs=request.jobs,
            tell=tell,
        )
        found = warming.run(sources, asked)
    if request.watched:
        pin(deployment, found.paths, known_too=bool(found.missing or found.unresolved))
    return index.name, wanted, found


def pin(deployment: Deployment, paths: Sequence[str], *, known_too: bool = False) -> None:
    """Have the server never prune these files, ``USER/INDEX/+f/…``. ``known_too``: nor those of the last time, because
    an upstream may not have answered. Raises EngineError."""
    place = deployment.server_dir
    if place is None:
        return
    text = place.read(PrivateFile.PINNED.relative)
    try:
        known = set(parsed(text)["files"]) if text else set()
    except (ValueError, KeyError, TypeError):
        known = set()
    wanted = {*paths, *(known if known_too else ())}
    if wanted != known:
        place.write(PrivateFile.PINNED.relative, json.dumps({"files": sorted(wanted)}) + "\n", verb=("store", "pinned"))


def targets_of(applied: Applied | None, pythons: Sequence[str], platforms: Sequence[str]) -> tuple[Target, ...]:
    """What options name, else the profile of the last ``up``, else deployer's own Python on this host.

    Raises UsageError.
    """
    declared = applied.profile.get("targets", {}) if applied else {}
    return targets(pythons or declared.get("python", ()), platforms or declared.get("platform", ()), own=OWN)


def require_files(sources: Sequence[Path]) -> None:
    """Raise UsageError for a file that does not exist, before anything is fetched."""
    for path in sources:
        if not path.is_file():
            raise UsageError(f"{path}: no such file", hint="name an existing file with -r")


def watched(deployment: Deployment) -> tuple[Path, ...]:
    """The files under ``warm`` of the profile of the last ``up``, as it is recorded. Raises ProfileError."""
    listed = watched_by(deployment.applied)
    if not listed:
        raise ProfileError(
            f"the profile of {deployment.name} names no files under warm",
            hint="add `warm: [requirements.txt]` to the profile, and run: deployer up",
        )
    return listed


def watched_by(applied: Applied | None) -> tuple[Path, ...]:
    """The files under ``warm`` of a recorded profile; relative ones are beside the profile's file."""
    listed = applied.profile.get("warm", ()) if applied else ()
    if applied is None or not listed:
        return ()
    if is_path(applied.profile_ref):
        beside = Path(applied.profile_ref).parent
    else:
        beside = next((one.path.parent for one in available() if one.name == applied.profile_ref), Path())
    return tuple(beside / Path(path).expanduser() for path in listed)


def keep_warm(name: str, ui: UI) -> Warmed | None:
    """Have the files under ``warm`` of the profile fetched after an ``up``; None where there are none.

    What is missing, or can't be read, is a warning: the server runs.
    """
    applied = read_applied(name)
    if not watched_by(applied):
        return None
    try:
        _, _, found = warm(name, "", Request(watched=True), ui)
    except DeployerError as error:
        ui.warn(f"nothing was fetched for the files under warm: {error.message}")
        return None
    if (finding := error_of(found)) is not None:
        ui.warn(f"{finding.message}; to list it: deployer warm --watched")
    ui.step("warm", f"{len(found.cached)} files cached, {len(found.fetched)} fetched")
    return found


def unpin(name: str, ui: UI) -> None:
    """Let the server prune again what an earlier profile listed under ``warm``."""
    try:
        pin(require(name), ())
    except DeployerError as error:
        ui.warn(f"the files that were under warm are still kept: {error.message}")


def missed(deployment: Deployment) -> Asked:
    """What clients asked for in vain since the server was switched offline. Raises ConflictError."""
    place = deployment.server_dir
    text = place.missed() if place else None
    try:
        found = built(Missed, parsed(text)) if text else None
    except ValueError:
        raise ConflictError(f"{deployment.name}: {text!r} is no list of requests", hint="deployer doctor") from None
    indexes = found["indexes"].values() if found else ()
    projects = sorted({project for of in indexes for project in of["projects"]})
    files = sorted({name for of in indexes for name in of["files"]})
    return Asked(
        projects=tuple(project for project in projects if is_project(project)),
        files=tuple((project, name) for name in files if (project := project_of(name))),
    )


def is_project(name: str) -> bool:
    """Whether it is the name of a project, and nothing that an installer would read as an option or a path."""
    from packaging.utils import is_normalized_name

    return is_normalized_name(name)
