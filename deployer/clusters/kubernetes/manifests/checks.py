"""What of a profile a Kubernetes can't have: refused with its cure, or told as having no effect. Nothing is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests.names import LONGEST, is_name
from deployer.errors import DeployerError, ProfileError, Refused, UsageError
from deployer.profile.models import AUTO, Profile

_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_HOST_ONLY = (
    "data",
    *("network.mode", "network.bind", "network.port", "network.expose"),
    *("server.pids", "server.nofile", "server.restart", "server.min_free"),
)
"""Keys about the host or the container engine. The cluster decides about these."""


def check(wanted: Wanted) -> None:
    """Raise a DeployerError for the first thing that would be lost."""
    for problem in _problems(wanted):
        raise problem


def warnings(wanted: Wanted) -> tuple[str, ...]:
    """What has no effect, a line each."""
    default, profile = Profile(), wanted.profile
    ignored = [key for key in _HOST_ONLY if _value(profile, key) != _value(default, key)]
    found = (f"{', '.join(ignored)}: no effect on Kubernetes",) if ignored else ()
    if profile.kubernetes.host and not profile.kubernetes.tls_secret:
        return (*found, "kubernetes.tls_secret is not set: the Ingress has its controller's default certificate")
    return found


def _value(profile: Profile, key: str) -> object:
    found: object = profile
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _problems(wanted: Wanted) -> Iterator[DeployerError]:
    profile = wanted.profile
    if not is_name(wanted.name):
        yield UsageError(
            f"{wanted.name} can't be the name of objects of Kubernetes",
            hint=f"choose another --name: at most {LONGEST} small letters, digits and -, starting with a letter",
        )
    yield from _of_keys(profile)
    yield from _of_server(profile)
    yield from _of_network(profile)


def _of_keys(profile: Profile) -> Iterator[DeployerError]:
    settings = profile.kubernetes
    for key in ("namespace", "storage_class", "tls_secret", "ingress_class", "pull_secret", "secret"):
        value = getattr(settings, key)
        if value and _OBJECT.fullmatch(value) is None:
            yield ProfileError(
                f"kubernetes.{key}: {value!r} is not the name of an object",
                hint="use small letters, digits, - and .",
            )
    if not settings.size:
        yield ProfileError("kubernetes.size is empty", hint="set the size of a volume, like 50g")
    if "*" in settings.host or settings.host != settings.host.lower() or "_" in settings.host:
        yield ProfileError(
            f"kubernetes.host: an Ingress can't have the host {settings.host}",
            hint="use small letters, digits, - and .",
        )
    if settings.tls_secret and not settings.host:
        yield ProfileError("kubernetes.tls_secret is for an Ingress", hint="set kubernetes.host, too")
    if settings.service_monitor and not profile.server.metrics:
        yield ProfileError(
            "kubernetes.service_monitor needs the port of metrics", hint="set server.metrics, like 0.0.0.0:9141"
        )


def _of_server(profile: Profile) -> Iterator[DeployerError]:
    image, server = profile.image, profile.server
    if image.ref:
        yield Refused(
            f"members can't run {image.ref}: they are servers of deployer's own image",
            hint="remove image.ref, and set cluster.image to where deployer's image was pushed",
        )
    if server.lifetime == "job":
        yield Refused(
            "members on Kubernetes can't end with a job", hint="set server.lifetime: unlimited, and use deployer down"
        )
    if server.option_files:
        yield Refused(
            f"server.option_files.{next(iter(server.option_files))} is a file of this host, which pods don't have",
            hint="remove it and use server.options, or engine: docker",
        )


def _of_network(profile: Profile) -> Iterator[DeployerError]:
    network = profile.network
    if network.tls.cert:
        yield Refused(
            "pods have no HTTPS of their own: network.tls has no effect",
            hint="remove network.tls, and set kubernetes.host and kubernetes.tls_secret",
        )
    if network.ca_file not in (AUTO, ""):
        yield Refused(
            f"network.ca_file: {network.ca_file} is a file of this host, which pods don't have",
            hint="remove it, and give deployer's image a base with this CA: image.base",
        )
    if network.proxy:
        yield Refused(
            "network.proxy: the proxy of this host is not that of the pods",
            hint="remove it, and give deployer's image a base with HTTPS_PROXY: image.base",
        )
