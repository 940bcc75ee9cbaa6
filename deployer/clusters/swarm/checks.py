"""What of a profile a swarm can't have: refused with its cure, or told as having no effect. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from deployer.clusters.base import Wanted
from deployer.clusters.swarm import names
from deployer.errors import Refused, UsageError
from deployer.plan.order import read_by_everybody
from deployer.profile.models import AUTO, Profile

_NO_EFFECT = ("data", "network.mode", "network.bind", "server.log_max_size", "server.log_max_files")
"""Keys about this host and the logs of its engine."""


def check(wanted: Wanted) -> None:
    """Raise UsageError for an unusable name, Refused with every reason why a swarm can't do what is wanted."""
    if not names.fits(wanted.name):
        raise UsageError(
            f"{wanted.name!r} can't begin the names of services: Docker takes {names.LONGEST} letters and digits, with "
            "_ and - between them",
            hint="choose another name with --name",
        )
    if found := list(_refusals(wanted)):
        (cause, cure), *others = found
        raise Refused(cause, hint=cure, details=tuple(f"also: {more} ({hint})" for more, hint in others))


def _refusals(wanted: Wanted) -> Iterator[tuple[str, str]]:
    profile = wanted.profile
    network, server = profile.network, profile.server
    if profile.image.ref:
        yield f"{profile.image.ref} can't be a member of a cluster", "remove image.ref: deployer's own image can"
    if network.tls.cert:
        yield (
            "a swarm has no HTTPS of deployer's: the key would have to be on its nodes",
            "remove network.tls, put a TLS proxy in front, and give its address as network.outside_url",
        )
    if not network.port:
        yield "network.port is 0, and each node of a swarm publishes the same port", "set network.port"
    if server.plugins and not profile.cluster.image:
        yield (
            "the image on the nodes of the swarm lacks server.plugins",
            "deployer image build; push that image to a registry, and set cluster.image",
        )
    if network.ca_file not in (AUTO, ""):
        yield (
            f"network.ca_file: {network.ca_file} is a file of this host, which the nodes of a swarm lack",
            "remove it, and give deployer's image a base with this CA: image.base",
        )
    if network.proxy:
        yield (
            "network.proxy: the proxy of this host is not that of the nodes",
            "remove it, and give deployer's image a base with HTTPS_PROXY: image.base",
        )
    if server.option_files:
        yield "server.option_files are files of this host, which the nodes of a swarm lack", "use server.options"
    if not network.expose and read_by_everybody(profile.indexes):
        yield (
            f"Swarm publishes port {network.port} at all addresses of a node, where other hosts can read indexes "
            "without a password",
            "name the readers of each index (read: of the index), or accept the risk with --expose (key "
            "network.expose)",
        )
    if wanted.identity.primary >= wanted.size:
        yield (
            f"member {wanted.identity.primary} is the primary, and cluster.replicas: {profile.cluster.replicas} would "
            "remove it",
            "deployer cluster promote 0",
        )


def warnings(wanted: Wanted) -> tuple[str, ...]:
    """What has no effect."""
    default, profile = Profile(), wanted.profile
    ignored = [key for key in _NO_EFFECT if _value(profile, key) != _value(default, key)]
    return (f"{', '.join(ignored)}: no effect on a swarm",) if ignored else ()


def _value(profile: Profile, key: str) -> object:
    found: object = profile
    for part in key.split("."):
        found = getattr(found, part)
    return found


def warnings_by_hand(wanted: Wanted) -> tuple[str, ...]:
    """The same for a stack that somebody deploys without ``deployer up``, and what it can't be sure of."""
    found = warnings(wanted)
    if not wanted.profile.cluster.image:
        found = (*found, f"cluster.image is not set: the nodes must have {wanted.image}")
    if not wanted.profile.swarm.nodes:
        found = (*found, "swarm.nodes is empty: with several managers, members may move away from their volumes")
    return found
