"""How members and clients reach each other, and what the cluster knows of them besides their pods."""

from __future__ import annotations

from typing import Any

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests.names import (
    HTTP,
    METRICS,
    PORTS,
    PRIMARY,
    UUID,
    Manifest,
    labels,
    made,
    members_service,
    of_profile,
    selector,
)

COMPONENT = "app.kubernetes.io/component"
_OF_UPLOADS = {
    "nginx.ingress.kubernetes.io/proxy-body-size": "0",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "300",
    "nginx.ingress.kubernetes.io/proxy-send-timeout": "300",
}
"""ingress-nginx refuses a body of more than a megabyte by default."""


def _object(wanted: Wanted, kind: str, api: str, name: str = "", *, component: str = "", **rest: Any) -> Manifest:
    own = {COMPONENT: component} if component else {}
    return made(
        kind,
        api,
        name or wanted.name,
        labels=labels(wanted.name) | own,
        annotations=of_profile(wanted.profile_name),
        **rest,
    )


def ports(wanted: Wanted) -> tuple[str, ...]:
    """The names of the ports that members have."""
    return (HTTP, METRICS) if wanted.profile.server.metrics else (HTTP,)


def config_map(wanted: Wanted) -> Manifest:
    """What the cluster remembers: its identity."""
    data = {PRIMARY: str(wanted.identity.primary), UUID: wanted.identity.uuid}
    return _object(wanted, "ConfigMap", "v1", data=data)


def services(wanted: Wanted) -> tuple[Manifest, Manifest]:
    """That of the clients, which has the members that are in sync, and that of the members, which has all of them."""
    of_clients = {"selector": selector(wanted.name), "ports": [_port(HTTP)]}
    of_members = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(wanted.name),
        "ports": [_port(name) for name in ports(wanted)],
    }
    return (
        _object(wanted, "Service", "v1", component="clients", spec=of_clients),
        _object(wanted, "Service", "v1", members_service(wanted.name), component="members", spec=of_members),
    )


def _port(name: str) -> dict[str, Any]:
    return {"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"}


def policy(wanted: Wanted) -> Manifest:
    """Nothing but the ports of members is reached. They reach everything: upstreams are anywhere.

    What members ask each other is guarded by their secret, since it is on the port of the clients.
    """
    spec = {
        "podSelector": {"matchLabels": selector(wanted.name)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": PORTS[name], "protocol": "TCP"} for name in ports(wanted)]}],
    }
    return _object(wanted, "NetworkPolicy", "networking.k8s.io/v1", spec=spec)


def disruption_budget(wanted: Wanted) -> Manifest:
    """One member at a time is drained. ``minAvailable`` would block the last one for ever."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(wanted.name)}}
    return _object(wanted, "PodDisruptionBudget", "policy/v1", spec=spec)


def ingress(wanted: Wanted) -> Manifest:
    """HTTPS of ``kubernetes.host``. Without ``tls_secret`` the certificate is the default one of its controller."""
    settings = wanted.profile.kubernetes
    backend = {"service": {"name": wanted.name, "port": {"name": HTTP}}}
    secret = {"secretName": settings.tls_secret} if settings.tls_secret else {}
    spec = {
        **({"ingressClassName": settings.ingress_class} if settings.ingress_class else {}),
        "tls": [{"hosts": [settings.host], **secret}],
        "rules": [
            {"host": settings.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        ],
    }
    found = _object(wanted, "Ingress", "networking.k8s.io/v1", spec=spec)
    found["metadata"]["annotations"] |= _OF_UPLOADS
    return found


def service_monitor(wanted: Wanted) -> Manifest:
    """Have the Prometheus operator ask each member."""
    spec = {
        "selector": {"matchLabels": {**selector(wanted.name), COMPONENT: "members"}},
        "endpoints": [{"port": METRICS}],
    }
    return _object(wanted, "ServiceMonitor", "monitoring.coreos.com/v1", spec=spec)
