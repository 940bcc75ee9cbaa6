"""The words of a member's command. They are the same in each pod: what differs is in variables of the pod."""

from __future__ import annotations

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests.names import (
    MEMBERS_SECRET,
    PORTS,
    ROOT_PASSWORD,
    SECRET_DIR,
    SERVER_DIR,
    members_service,
    pod_name,
)
from deployer.plan.container import EVERY, METRICS_PORT, OWN_PORT, serve_command
from deployer.profile.models import Profile


def literal(word: str) -> str:
    """A word in which Kubernetes sees no variable (``$(NAME)``; reference of Container, ``args``)."""
    return word.replace("$", "$$")


def outside_url(profile: Profile) -> str:
    """The address that clients are given; empty when it is not known."""
    host = profile.kubernetes.host
    return profile.network.outside_url or (f"https://{host}" if host else "")


def command(wanted: Wanted) -> tuple[str, ...]:
    """The arguments of the image, with variables that Kubernetes fills in."""
    profile = wanted.profile
    network = profile.network.model_copy(update={"outside_url": outside_url(profile)})
    served = serve_command(
        profile.model_copy(update={"network": network}),
        directory=SERVER_DIR,
        host=EVERY,
        port=OWN_PORT,
        metrics=f"{EVERY}:{METRICS_PORT}" if profile.server.metrics else "",
        marked=False,  # an empty volume is refused by the uuid
        hosts=() if _any_host(profile) else profile.network.hosts,
    )
    return (*map(literal, (*served, *_plugins(profile))), *_hosts(wanted), *_member(wanted))


def _any_host(profile: Profile) -> bool:
    return not profile.network.hosts and not outside_url(profile)


def _hosts(wanted: Wanted) -> tuple[str, ...]:
    """The names of the Host header: all of them where nobody named one, else also those of the services and its own."""
    if _any_host(wanted.profile):
        return ("--allow-host", "*")
    name = wanted.name
    service = (f"{name}.$(NAMESPACE)", f"{name}.$(NAMESPACE).svc", f"{name}.$(NAMESPACE).svc.cluster.local")
    own = _address(name, "$(MEMBER)")
    return tuple(word for known in (*service, own) for word in ("--allow-host", known))


def _address(name: str, number: str) -> str:
    """The host of a member, in its namespace."""
    return f"{pod_name(name, number)}.{members_service(name)}"


def _plugins(profile: Profile) -> tuple[str, ...]:
    """The plugins that the image must have, and their options."""
    server = profile.server
    named = [word for pin in server.plugins for word in ("--plugin", pin)]
    return (*named, *(word for key, value in server.options.items() for word in ("--option", f"{key}={value}")))


def _member(wanted: Wanted) -> tuple[str, ...]:
    cluster = wanted.profile.cluster
    return (
        *("--member", "$(MEMBER)", "--primary", "$(PRIMARY)", "--cluster-uuid", "$(CLUSTER_UUID)"),
        *("--primary-url", f"http://{_address(wanted.name, '$(PRIMARY)')}:{PORTS['http']}"),
        *("--secret-file", f"{SECRET_DIR}/{MEMBERS_SECRET}"),
        *("--root-password-file", f"{SECRET_DIR}/{ROOT_PASSWORD}"),
        *("--write-wait", f"{cluster.write_wait:g}"),
        *(() if cluster.replica_upstream else ("--no-replica-upstream",)),
        *(word for index in cluster.files_on_demand for word in ("--files-on-demand", index)),
    )
