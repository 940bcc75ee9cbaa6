"""Choose the network of the server. Pure: the results of the upstream probe come in as data.

``auto`` chooses the bridge if a bridged container reaches every upstream that this host reaches, and the host network
otherwise: behind a VPN that drops forwarded packets, with a resolver that containers can't reach, with a proxy on
loopback, or with an MTU that is too large for the route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.plan.facts import Facts, Measured, Reach, Vantage
from deployer.spec import THROW_AWAY, ContainerSpec, NetworkMode
from deployer.typed import built

if TYPE_CHECKING:
    from deployer.profile.models import Profile

DEFAULT_UPSTREAM = "default"
"""Stands for devpi-server's default upstream. Only the server knows its URL (``reach`` in ``deployer.server``)."""
REACH_SECONDS = 10
"""Timeout of one upstream in the probe, in seconds."""
MOST_UPSTREAMS = 8


@dataclass(frozen=True, kw_only=True)
class Network:
    """The chosen network. ``open``: the upstreams were not probed yet, so the choice may change."""

    mode: NetworkMode
    reason: str
    open: bool = False
    warning: str = ""


def choose(profile: Profile, facts: Facts, *, profile_name: str) -> Network:
    """Choose the network of the server."""
    if not facts.engine.features.bridge:
        return Network(mode=NetworkMode.HOST, reason="a process uses the network of this host")
    if profile.network.mode != "auto":
        return Network(mode=NetworkMode(profile.network.mode), reason=f"profile {profile_name}")
    if profile.image.ref:
        return Network(mode=NetworkMode.BRIDGE, reason="auto: upstreams are not probed with a foreign image")
    if profile.server.offline or not upstreams(profile, facts):
        return Network(mode=NetworkMode.BRIDGE, reason="auto: no upstream")
    if facts.measured is None:
        current = facts.current
        held = current is not None and current.ours and current.network is NetworkMode.HOST
        return Network(
            mode=NetworkMode.HOST if held else NetworkMode.BRIDGE, reason="auto: upstreams not probed yet", open=True
        )
    return _measured(facts.measured)


def _measured(measured: Measured) -> Network:
    lost = list(missed(measured))
    if lost:
        url, seen = lost[0]
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return Network(
            mode=NetworkMode.HOST,
            reason=f"auto: this host reaches {_place(url)}{more}, a bridged container does not: {seen}",
        )
    answers = measured.bridge.answers
    if answers and all(answer.ok for answer in answers):
        names = ", ".join(_place(answer.url) for answer in answers)
        return Network(mode=NetworkMode.BRIDGE, reason=f"auto: a bridged container reaches {names}")
    why = "; ".join(f"{_place(answer.url)}: {said(answer)}" for answer in answers if not answer.ok)
    return Network(
        mode=NetworkMode.BRIDGE,
        reason="auto: neither a bridged container nor this host reaches every upstream",
        warning=f"upstreams not reachable, with or without a container: {why or measured.bridge.failure}",
    )


def missed(measured: Measured) -> tuple[tuple[str, str], ...]:
    """The upstreams that this host reaches and a bridged container does not: (URL, failure in the container)."""
    seen = {answer.url: answer for answer in measured.bridge.answers}
    return tuple(
        (answer.url, said(seen[answer.url]) if answer.url in seen else measured.bridge.failure)
        for answer in (measured.host.answers if measured.host else ())
        if answer.ok and not (answer.url in seen and seen[answer.url].ok)
    )


def conclusive(measured: Measured) -> bool:
    """Whether the choice rests on an upstream that answered. It then holds until the network changes."""
    return bool(missed(measured)) or (bool(measured.bridge.answers) and all(a.ok for a in measured.bridge.answers))


_STAGES = {
    "resolve": "{peer}: name resolution failed: {error}",
    "connect": "{peer}: connection failed: {error}",
    "tls": "{peer}: TLS handshake failed: {error}",
    "answer": "{peer} did not answer: {error}",
    "body": "{peer}: the body ended after {bytes} bytes: {error}",
}


def said(answer: Reach) -> str:
    """Describe the result of one request."""
    if answer.stage == "done":
        return f"{answer.status} in {answer.seconds:.1f} s"
    return _STAGES[answer.stage].format(peer=answer.peer or "upstream", error=answer.error, bytes=answer.bytes)


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or url


def proxied(url: str, proxies: Mapping[str, str]) -> bool:
    """Whether programs use a proxy for ``url`` with these variables. They do for loopback, too."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    if not any(proxies.get(name) for name in names):
        return False
    but = proxies.get("no_proxy") or proxies.get("NO_PROXY") or ""
    return not proxy_bypass_environment(parts.hostname or "", {"no": but})


def upstreams(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """The upstream URLs of a profile's mirrors, each once, at most :data:`MOST_UPSTREAMS`."""
    urls = (
        index.url or facts.upstream or DEFAULT_UPSTREAM for index in profile.indexes.values() if index.type == "mirror"
    )
    return tuple(dict.fromkeys(urls))[:MOST_UPSTREAMS]


def reach_spec(spec: ContainerSpec, urls: tuple[str, ...], *, ca_target: str) -> ContainerSpec:
    """The bridged container that probes ``urls``. Certificates, proxy and limits are those of ``spec``."""
    return replace(
        spec,
        name=spec.name + THROW_AWAY,
        command=("reach", f"--timeout={REACH_SECONDS}", *urls),
        mounts=tuple(mount for mount in spec.mounts if mount.target == ca_target),
        network=NetworkMode.BRIDGE,
        ports=(),
        user=spec.user or "65534:65534",
        restart="no",
        stop_timeout=timedelta(seconds=1),
    )


def on_host(spec: ContainerSpec, *, ca_file: Path | None, ca_target: str) -> ContainerSpec:
    """The same probe on this host, with this host's path of the CA bundle."""
    env = tuple((key, str(ca_file) if value == ca_target else value) for key, value in spec.env)
    return replace(spec, env=env, mounts=())


def vantage(told: object) -> Vantage:
    """Check the output of ``reach``, which is parsed JSON. Raises ValueError when it is invalid."""
    found = built(Vantage, told)
    if not found.answers and not found.failure:
        raise ValueError("no answers")
    if any(answer.stage not in {*_STAGES, "done"} for answer in found.answers):
        raise ValueError("an unknown stage")
    return found
