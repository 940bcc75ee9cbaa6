"""What tells builders apart, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployer.spec import EngineName


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A command that builds images.

    ``argv``: its words before the options. ``files``: names of the build file that it looks for, in order. ``secrets``:
    whether a step can read a file that is in no layer; ``variables``: whether it can read variables that way, too.
    ``inherits``: whether steps get the builder's own proxy variables. ``host``: options with which steps share this
    host's network.
    """

    name: str
    argv: tuple[str, ...]
    files: tuple[str, ...] = ("Dockerfile",)
    secrets: bool = True
    variables: bool = False
    inherits: bool = False
    host: tuple[str, ...] = ("--network=host",)
    env: Mapping[str, str] = field(default_factory=dict)
    engine: EngineName = EngineName.DOCKER


CLASSIC = Builder(name="docker", argv=("docker", "build"), secrets=False, env={"DOCKER_BUILDKIT": "0"})
BUILDKIT = Builder(name="docker", argv=("docker", "build"), env={"DOCKER_BUILDKIT": "1"})
PODMAN = Builder(
    name="podman",
    argv=("podman", "build"),
    files=("Containerfile", "Dockerfile"),
    inherits=True,
    engine=EngineName.PODMAN,
)
BUILDAH = Builder(
    name="buildah",
    argv=("buildah", "build"),
    files=("Containerfile", "Dockerfile"),
    inherits=True,
    engine=EngineName.PODMAN,
)
# BuildKit refuses the option unless it was started with an entitlement; its own default is the host's network.
NERDCTL = Builder(
    name="nerdctl",
    argv=("nerdctl", "build"),
    files=("Dockerfile", "Containerfile"),
    host=(),
    engine=EngineName.NERDCTL,
)
BUILDERS = ("docker", "podman", "buildah", "nerdctl")
"""What a user can ask for by name."""


def builder(name: str, *, buildkit: bool) -> Builder:
    """The builder ``name``, one of BUILDERS; ``buildkit``: whether docker has it."""
    match name:
        case "docker":
            return BUILDKIT if buildkit else CLASSIC
        case "podman":
            return PODMAN
        case "buildah":
            return BUILDAH
        case _:
            return NERDCTL
