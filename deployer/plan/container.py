"""Build the spec of the container or process."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.plan.data import DataPlan
from deployer.plan.facts import Facts
from deployer.plan.limits import held_limits, restart_policy
from deployer.plan.plugins import arguments
from deployer.plan.plugins import mounts as option_mounts
from deployer.plan.tls import INNER_PORT, plain_bind
from deployer.protocol import parse_span
from deployer.spec import (
    LABEL_NAME,
    LABEL_PROFILE,
    LABEL_TLS,
    LABEL_URL,
    LABEL_USER,
    LABEL_VERSION,
    ContainerSpec,
    Mount,
    NetworkMode,
    Port,
)

if TYPE_CHECKING:
    from deployer.profile.models import Oidc, Profile

OWN_DATA, OWN_PORT = "/data", 3141
"""The data directory and the published port of the server in our image."""
METRICS_PORT = 9141
"""The port for Prometheus inside the container."""
ONLY_MARKED = "--only-marked"
"""Option of our server: begin no index in a directory without its mark."""
EVERY = "0.0.0.0"  # noqa: S104 - inside the container
CA_TARGET = "/etc/deployer/ca.pem"
TMPFS = "/tmp:rw,noexec,nosuid,nodev,size=64m"  # noqa: S108 - inside the container


def container_spec(
    profile: Profile,
    facts: Facts,
    data: DataPlan,
    mode: NetworkMode,
    *,
    name: str,
    profile_name: str,
    url: str,
    tls_url: str = "",
) -> ContainerSpec:
    """The container that serves ``data`` at ``url``, and by HTTPS at ``tls_url``."""
    if facts.engine.features.containers:
        made = _contained(profile, facts, data, mode, name=name)
    else:
        made = _process(profile, facts, data, name=name)
    env, mounts = _environment(profile, facts)
    if mode is NetworkMode.HOST:
        mounts += _resolver(facts)
    labels = {LABEL_NAME: name, LABEL_PROFILE: profile_name, LABEL_URL: url, LABEL_VERSION: facts.version}
    labels[LABEL_USER] = str(facts.uid)
    if tls_url:
        labels[LABEL_TLS] = tls_url
    server = profile.server
    return replace(
        made,
        command=(*made.command, *arguments(profile, facts)),
        labels=tuple(sorted(labels.items())),
        env=tuple(sorted((env | dict(made.env)).items())),
        mounts=made.mounts + mounts + option_mounts(profile, facts),
        network=mode,
        restart=restart_policy(server.restart, facts.engine),
        stop_timeout=timedelta(seconds=server.stop_timeout),
        log_max_size=server.log_max_size,
        log_max_files=server.log_max_files,
        withheld=facts.engine.injects,
    )


def _process(profile: Profile, facts: Facts, data: DataPlan, *, name: str) -> ContainerSpec:
    bind, port, metrics = str(plain_bind(profile.network)), facts.port.number, profile.server.metrics
    tls = _tls_port(profile, facts)
    return ContainerSpec(
        name=name,
        image=f"devpi-server-{facts.engine.version}",
        build=facts.image_build,
        command=serve_command(
            profile,
            directory=data.source,
            host=bind,
            port=port,
            tls=_listens_at(tls),
            metrics=metrics,
            marked=True,
            hosts=_hosts(profile, facts),
        ),
        mounts=(Mount(kind="bind", source=data.source, target=data.source),),
        ports=(Port(host_ip=bind, host_port=port, container_port=port), *tls),
    )


def _contained(profile: Profile, facts: Facts, data: DataPlan, mode: NetworkMode, *, name: str) -> ContainerSpec:
    image, own, published = profile.image, not profile.image.ref, mode is NetworkMode.BRIDGE
    relabel = facts.selinux and data.kind == "bind"
    target = OWN_DATA if own else image.data_path
    inner = OWN_PORT if own else image.port
    port = Port(host_ip=str(plain_bind(profile.network)), host_port=facts.port.number, container_port=inner)
    tls = tuple(replace(one, container_port=INNER_PORT) for one in _tls_port(profile, facts))
    return ContainerSpec(
        name=name,
        image=image.ref or facts.image_ref,
        build=facts.image_build if own else "",
        command=_own_command(profile, facts, data, published=published) if own else image.command,
        env=tuple(image.env.items()),
        mounts=(Mount(kind=data.kind, source=data.source, target=target, relabel=relabel),),
        tmpfs=(TMPFS,),
        ports=(port, *tls, *_metrics_port(profile.server.metrics, own=own)) if published else (),
        user=_user(profile, facts, data),
        userns=_userns(profile, facts, data),
        stop_signal=image.stop_signal,
        limits=held_limits(profile, facts),
        read_only=image.read_only,
    )


def _own_command(profile: Profile, facts: Facts, data: DataPlan, *, published: bool) -> tuple[str, ...]:
    host, port, metrics = str(plain_bind(profile.network)), facts.port.number, profile.server.metrics
    tls = _listens_at(_tls_port(profile, facts))
    if published:  # the address of the published port limits who can connect
        host, port, metrics = EVERY, OWN_PORT, metrics and f"{EVERY}:{METRICS_PORT}"
        tls = tls and f"{EVERY}:{INNER_PORT}"
    marked = data.kind == "bind"  # a volume is never a disk that is not mounted
    return serve_command(
        profile,
        directory=OWN_DATA,
        host=host,
        port=port,
        tls=tls,
        metrics=metrics,
        marked=marked,
        hosts=_hosts(profile, facts),
    )


def serve_command(
    profile: Profile,
    *,
    directory: str,
    host: str,
    port: int,
    metrics: str,
    marked: bool,
    tls: str = "",
    hosts: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """The arguments of our own server, in the image and as a process.

    ``tls``, ``metrics``: the addresses of HTTPS and for Prometheus. ``hosts``: known names in the Host header.
    ``marked``: begin a new index only where
    :attr:`DataPlan.mark` was left.
    """
    server = profile.server
    command = ["serve", "--serverdir", directory, "--host", host, "--port", str(port)]
    if tls:
        command += ["--tls", tls]
    if marked:
        command.append(ONLY_MARKED)
    command += ["--request-timeout", str(server.request_timeout)]
    command += ["--mirror-cache-expiry", str(server.mirror_cache_expiry), "--threads", str(server.threads)]
    if server.not_found_expiry != 60:
        command += ["--not-found-expiry", str(server.not_found_expiry)]
    if server.keep_deleted:
        command.append("--keep-deleted")
    if server.web != "manage":
        command += ["--web", server.web]
    if server.offline:
        command.append("--offline")
    if server.log_max_size and server.log_max_size != "10m":
        command += ["--log-max-size", server.log_max_size]
    if server.log_max_files != 3:
        command += ["--log-max-files", str(server.log_max_files)]
    if server.budget:
        command += ["--cache-budget", server.budget]
    if server.cdn:
        command += ["--cdn", str(server.cdn)]
    if metrics:
        command += ["--metrics", metrics]
    if server.front != "auto":
        command += ["--front", server.front]
    for rule in server.oidc:
        command += ["--oidc", oidc_rule(rule)]
    for name, index in profile.indexes.items():
        if index.quota:
            command += ["--quota", f"{name}={index.quota}"]
    for origin in server.push_to:
        command += ["--push-to", origin]
    for host in hosts:
        command += ["--allow-host", host]
    if profile.network.outside_url:
        command += ["--outside-url", profile.network.outside_url]
    for proxy in profile.network.trusted_proxies:
        command += ["--trusted-proxy", proxy]
    return tuple(command)


def _tls_port(profile: Profile, facts: Facts) -> tuple[Port, ...]:
    """The port of HTTPS on this host; none without."""
    port = facts.tls_port
    bind = str(profile.network.bind)
    return (Port(host_ip=bind, host_port=port.number, container_port=port.number),) if port is not None else ()


def _listens_at(ports: tuple[Port, ...]) -> str:
    """``HOST:PORT`` of the first one; empty without."""
    return next(
        (
            f"[{one.host_ip}]:{one.host_port}" if ":" in one.host_ip else f"{one.host_ip}:{one.host_port}"
            for one in ports
        ),
        "",
    )


def oidc_rule(rule: Oidc) -> str:
    """A rule as the server reads it."""
    found = rule.model_dump(mode="json", exclude={"lifetime"})
    return json.dumps({**found, "seconds": parse_span(rule.lifetime)}, separators=(",", ":"))


def by_hand(spec: ContainerSpec) -> ContainerSpec:
    """The spec for somebody who runs it without ``deployer up``, which leaves the mark in a new directory."""
    return replace(spec, command=tuple(word for word in spec.command if word != ONLY_MARKED))


def _hosts(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """The names in the Host header that are answered besides the server's own.

    Others reach an exposed server by names that are not known here: it answers every name until some are listed. With
    HTTPS clients can use no names but those of the certificate.
    """
    network, certificate = profile.network, facts.certificate
    named = network.hosts if certificate is None else (*network.hosts, *network.tls.names)
    if certificate is not None and not any("*" in name for name in certificate.names):
        dotted = (name for name in certificate.names if "." in name and not name[-1].isdigit())
        return tuple(dict.fromkeys((*named, *dotted)))
    unknown = not network.bind.is_loopback and not named and not network.outside_url
    return ("*",) if unknown else named


def _environment(profile: Profile, facts: Facts) -> tuple[dict[str, str], tuple[Mount, ...]]:
    """The variables and mounts that give the server this host's CA bundle and proxy."""
    env: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    if facts.ca_file is not None:
        inside = facts.engine.features.containers
        target = CA_TARGET if inside else str(facts.ca_file)
        env |= {"REQUESTS_CA_BUNDLE": target, "SSL_CERT_FILE": target}
        if inside:
            mounts = (Mount(kind="bind", source=str(facts.ca_file), target=target, read_only=True, relabel=False),)
    if profile.network.proxy:
        env |= facts.proxies
    return env, mounts


def _resolver(facts: Facts) -> tuple[Mount, ...]:
    """Mount the host's resolv.conf, since an engine only copies it at the start and a VPN changes it later.

    Not with SELinux: a container may not read the file, and relabelling a file of the host would break its owner.
    """
    if not facts.engine.features.containers or facts.resolv_conf is None or facts.selinux:
        return ()
    path = str(facts.resolv_conf)
    return (Mount(kind="bind", source=path, target=path, read_only=True),)


def _metrics_port(address: str, *, own: bool) -> tuple[Port, ...]:
    host, _, port = address.rpartition(":")
    return (Port(host_ip=host, host_port=int(port), container_port=METRICS_PORT),) if address and own else ()


def _user(profile: Profile, facts: Facts, data: DataPlan) -> str:
    if profile.image.user:
        return profile.image.user
    if data.kind == "volume":
        return ""  # the engine gives a new volume to the image's user
    if facts.engine.rootless and not facts.engine.features.keep_id:
        return "0:0"  # maps to the invoking user on the host
    return f"{data.uid}:{data.gid}"


def _userns(profile: Profile, facts: Facts, data: DataPlan) -> str:
    """Map the user inside to the invoking user, who then owns the files on the host."""
    if not (facts.engine.rootless and facts.engine.features.keep_id) or data.kind == "volume":
        return ""
    if not profile.image.user:
        return "keep-id"
    uid, _, gid = profile.image.user.partition(":")
    return f"keep-id:uid={uid},gid={gid}"
