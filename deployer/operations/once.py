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
    """Return a one-off run with the user, limits and hardening of ``spec``. Pure.

    ``purpose``: suffix of the container's name. ``mounts``: data with container paths; a process uses the host paths.
    ``command``: returns the arguments of a server verb for these paths.
    Mount a new volume at ``/data``: there it gets the user of our image; elsewhere docker gives it to root.
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
