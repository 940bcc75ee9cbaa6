"""The files that a server has, as a manifest, and where each of them is fetched from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from deployer import __version__
from deployer.bundle.manifest import SCHEMA, File, Index, Manifest, ServerImage
from deployer.deployment.find import Deployment
from deployer.deployment.session import Session
from deployer.devpi.admission import require_index
from deployer.devpi.packages import NO_ORDERS
from deployer.devpi.topology import Topology
from deployer.errors import ServerRefused
from deployer.spec import LABEL_BUILD


@dataclass(frozen=True, kw_only=True)
class Contents:
    """``addresses``: the URLs of each file, by its index and name."""

    manifest: Manifest
    addresses: Mapping[tuple[str, str], str]


def contents(session: Session, topology: Topology, indexes: Sequence[str] | None = None) -> Contents:
    """List the stored files of ``indexes``; None: of all. The session is with a deployment.

    Raises ConflictError, ServerRefused for a server that is not ours.
    """
    assert session.deployment is not None  # noqa: S101 - narrowed by the caller
    key = session.deployment.proof_key(otherwise=NO_ORDERS)
    found: dict[str, Index] = {}
    files: list[File] = []
    addresses: dict[tuple[str, str], str] = {}
    for name in sorted(topology.indexes if indexes is None else indexes):
        if require_index(name, topology).type == "mirror":
            told = session.api.cached(name, proof_key=key)
            found[name] = Index(mirror=told["url"], pages=told["pages"])
            for one in told["files"]:
                filename = one["path"].rpartition("/")[2]
                files.append(
                    File(
                        index=name,
                        project=one["project"],
                        filename=filename,
                        sha256=one["sha256"],
                        size=one["size"],
                        file=one["file"],
                        companions=one["companions"],
                    )
                )
                addresses[name, filename] = f"{session.api.url}/{name}/{quote(one['path'], safe='/+!')}"
            continue
        found[name] = Index()
        for project in sorted(session.api.projects(name)):
            for listed in session.api.released(name, project):
                if not listed.size:
                    raise ServerRefused(f"{name} does not tell the size of {listed.filename}", hint=NO_ORDERS)
                files.append(
                    File(
                        index=name,
                        project=project,
                        filename=listed.filename,
                        sha256=listed.sha256,
                        size=listed.size,
                    )
                )
                addresses[name, listed.filename] = listed.url
    manifest = Manifest(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        deployer=__version__,
        image=server_image(session.deployment),
        indexes=found,
        files=tuple(files),
    )
    return Contents(manifest=manifest, addresses=addresses)


def server_image(deployment: Deployment) -> ServerImage | None:
    """The image of the server; None for a process."""
    images = deployment.engine.images
    image = images.find(deployment.container.image) if images is not None else None
    if image is None:
        return None
    return ServerImage(ref=deployment.container.image, id=image.id, build=image.labels.get(LABEL_BUILD, ""))
