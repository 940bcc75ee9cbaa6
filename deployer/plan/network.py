"""Which network a server gets, and how that is found out. Pure: what was measured comes in as data.

``auto`` takes the bridge where a bridged container gets what this host gets, and the host's own network where only
that works: behind a VPN that drops what is forwarded, with a resolver that containers can't ask, with a proxy on
loopback, with packets that are too large for the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from deployer.plan.facts import Facts, Measured, Reach, Vantage
from deployer.profile.models import Profile
from deployer.spec import THROW_AWAY, ContainerSpec, NetworkMode

DEFAULT_UPSTREAM = "default"
"""What devpi-server mirrors when it is told nothing; only it knows the address (``reach`` in ``deployer.server``)."""
REACH_SECONDS = 10
"""How long an upstream has to answer to be taken for one that does."""
MOST_UPSTREAMS = 8


@dataclass(frozen=True, kw_only=True)
class Network:
    """A decision. ``open``: it was not measured, and would be another one perhaps; ``warning``: if it worries."""

    mode: NetworkMode
    reason: str
    open: bool = False
    warning: str = ""


def choose(profile: Profile, facts: Facts, *, profile_name: str) -> Network:
    """The network of the server."""
    if not facts.engine.features.bridge:
        return Network(mode=NetworkMode.HOST, reason="a process has the network of this host")
    if profile.network.mode != "auto":
        return Network(mode=NetworkMode(profile.network.mode), reason=f"profile {profile_name}")
    if profile.image.ref:
        return Network(mode=NetworkMode.BRIDGE, reason="auto: nothing is measured with an image that is not ours")
    if profile.server.offline or not upstreams(profile, facts):
        return Network(mode=NetworkMode.BRIDGE, reason="auto: there is no upstream to be reached")
    if facts.measured is None:
        current = facts.current
        mode = current.network if current is not None and current.ours and current.network else NetworkMode.BRIDGE
        return Network(mode=mode, reason="auto: not measured yet", open=True)
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
        warning=f"no answer from here, in a container or not: {why or measured.bridge.failure}",
    )


def missed(measured: Measured) -> tuple[tuple[str, str], ...]:
    """What this host reaches and a bridged container does not: (address, how far the container came)."""
    seen = {answer.url: answer for answer in measured.bridge.answers}
    return tuple(
        (answer.url, said(seen[answer.url]) if answer.url in seen else measured.bridge.failure)
        for answer in (measured.host.answers if measured.host else ())
        if answer.ok and not (answer.url in seen and seen[answer.url].ok)
    )


def conclusive(measured: Measured) -> bool:
    """Whether the decision rests on an upstream that answered, so that it holds until the network changes."""
    return bool(missed(measured)) or (bool(measured.bridge.answers) and all(a.ok for a in measured.bridge.answers))


_STAGES = {
    "resolve": "{peer} is not found by name: {error}",
    "connect": "{peer} does not take the connection: {error}",
    "tls": "the TLS handshake with {peer} does not end well: {error}",
    "answer": "{peer} was asked and does not answer: {error}",
    "body": "{peer} answers, but of the body only {bytes} bytes came: {error}",
}


def said(answer: Reach) -> str:
    """How far one request came, in words."""
    if answer.stage == "done":
        return f"{answer.status} in {answer.seconds:.1f} s"
    return _STAGES[answer.stage].format(peer=answer.peer or "it", error=answer.error, bytes=answer.bytes)


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or url


def proxied(url: str, proxies: Mapping[str, str]) -> bool:
    """Whether programs ask a proxy for ``url`` under these variables; loopback is no exception to them."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    if not any(proxies.get(name) for name in names):
        return False
    but = proxies.get("no_proxy") or proxies.get("NO_PROXY") or ""
    return not proxy_bypass_environment(parts.hostname or "", {"no": but})


def upstreams(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """The addresses that the mirrors of a profile ask, each once."""
    urls = (
        index.url or facts.upstream or DEFAULT_UPSTREAM for index in profile.indexes.values() if index.type == "mirror"
    )
    return tuple(dict.fromkeys(urls))[:MOST_UPSTREAMS]


def reach_spec(spec: ContainerSpec, urls: tuple[str, ...], *, ca_target: str) -> ContainerSpec:
    """The bridged container that asks ``urls`` and ends; certificates, proxy and limits are those of ``spec``."""
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
    """The same question from this host, where the certificates have a path of their own."""
    env = tuple((key, str(ca_file) if value == ca_target else value) for key, value in spec.env)
    return replace(spec, env=env, mounts=())


def vantage(told: Mapping[str, object]) -> Vantage:
    """What ``reach`` printed. Raises KeyError, TypeError or ValueError when it is something else."""
    answers = told["answers"]
    resolvers, mtu = told["resolvers"], told["mtu"]
    if not isinstance(answers, list) or not isinstance(resolvers, list) or not isinstance(mtu, dict):
        raise TypeError("not what reach prints")
    return Vantage(
        answers=tuple(Reach(**{**answer, "addresses": tuple(answer["addresses"])}) for answer in answers),
        resolvers=tuple(str(address) for address in resolvers),
        mtu={str(name): int(size) for name, size in mtu.items()},
        failure=str(told.get("failure", "")),
    )
