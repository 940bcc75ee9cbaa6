"""Run our image once on the data of a stopped server: copy it, check it, back it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from deployer.spec import ContainerSpec, EngineName, Mount, features


def on_stopped_data(
    spec: ContainerSpec,
    *,
    purpose: str,
    engine: EngineName,
    image: str,
    mounts: Sequence[Mount],
    command: Callable[[Sequence[str]], tuple[str, ...]],
) -> ContainerSpec:
    """Return a run beside the server of ``spec``, with its user, limits and hardening. Pure.

    ``purpose``: what the name of the container ends with. ``mounts``: data by the paths that a container sees; a
    process sees the data where it is on this host. ``command``: makes the words of a server verb from these paths.
    Our image keeps data at ``/data``, where a new volume gets that image's user; elsewhere docker gives it to root.
    """
    inside = features(engine).containers
    paths = [mount.target if inside else mount.source for mount in mounts]
    return replace(
        spec,
        name=f"{spec.name}-{purpose}",
        image=image if inside else spec.image,
        mounts=tuple(mounts) if inside else (),
        command=command(paths),
        ports=(),
        env=(),
        restart="no",
    )
