"""Checks of the network: route, DNS, MTU, proxies, certificates, clock, upstreams, network mode."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deployer.addresses import is_loopback
from deployer.diagnosis import Check, failure, ok, size, warning
from deployer.diagnosis.view import View, host_of, stuck
from deployer.plan.facts import Reach
from deployer.plan.network import said
from deployer.secrets import mask_url
from deployer.spec import NetworkMode, features

LARGE = 4096
"""Size in bytes of a body that needs more than one packet with any MTU."""
CLOCK = 120.0
"""Seconds that two clocks may differ before certificates and tokens become invalid."""
HOST_NETWORK = "deployer up --network host"


def checks(view: View) -> Iterator[Check]:
    """Run all network checks."""
    yield route(view)
    if view.offline:
        yield ok("upstream", "not asked: the server is to work offline (server.offline)")
        return
    yield names(view)
    yield packets(view)
    yield proxy(view)
    yield certificates(view)
    yield clock(view)
    yield from upstream(view)
    yield network(view)
    yield from stale(view)


def route(view: View) -> Check:
    """The route from this host to the upstream."""
    out = view.way_out
    if out is None and not view.default_route:
        told = "this host has no default route"
        return ok("route", told) if any(answer.ok for answer in view.host.answers) else warning("route", told)
    where = out.name if out else view.default_route
    parts = [f"out by {where}" + (" (a VPN)" if where in view.vpns else "")]
    if out is not None:
        parts.append(f"packets of at most {out.mtu} bytes")
    if out is not None and view.default_route not in ("", out.name):
        parts.append(f"the default route is {view.default_route}")
    others = [name for name in view.vpns if name != where]
    if others:
        parts.append(f"VPN: {', '.join(others)}")
    return ok("route", "; ".join(parts))


def names(view: View) -> Check:
    """Whether the upstream's name resolves, on this host and in containers."""
    asked = ", ".join(view.name_servers) or "nobody"
    here, there = list(stuck(view.host, "resolve")), list(stuck(view.bridge, "resolve"))
    if here:
        works = view.inside is not None and not list(stuck(view.inside, "resolve"))
        return (warning if works else failure)(
            "names",
            f"this host does not find {host_of(here[0])} by name: it asks {asked} ({here[0].error})",
            cure="name a server that answers in /etc/resolv.conf, or connect the VPN that it is behind",
        )
    if there and view.bridge is not None:
        name, servers = host_of(there[0]), ", ".join(view.bridge.resolvers) or "nobody"
        text = f"this host finds {name} (it asks {asked}), a bridged container does not: it asks {servers}"
        if not view.matters:
            return ok("names", text)
        return failure("names", text, cure=f"{HOST_NETWORK}, or put dns into {_engine_file(view)}")
    found = {host_of(answer) for answer in view.server.answers if answer.addresses}
    return ok("names", f"{', '.join(sorted(found)) or 'nothing'} found by asking {asked}")


def _engine_file(view: View) -> str:
    return features(view.engine).bridge_file or "the engine's configuration"


def packets(view: View) -> Check:
    """Whether large packets arrive: without path MTU discovery, those above the MTU are dropped silently."""
    out, inner = view.way_out, view.bridge_mtu
    outer = out.mtu if out else 0
    sizes = f"{out.name} takes {outer} bytes" if out else "the way out is not known"
    if inner:
        sizes += f", a bridged container sends {inner}"
    here, there = list(stuck(view.host, "body", "tls")), list(stuck(view.bridge, "body", "tls"))
    if here and not _is_certificate(here[0]):
        smaller = max(1280, outer - 120) if outer else 1280
        return failure(
            "mtu",
            f"{said(here[0])}; large packets are lost on the way ({sizes})",
            cure=f"ip link set dev {out.name if out else 'DEV'} mtu {smaller}, and ask your network for its MTU",
        )
    if there and not _is_certificate(there[0]):
        text = f"in a bridged container {said(there[0])}; large packets are lost on the way ({sizes})"
        if not view.matters:
            return ok("mtu", text)
        return failure("mtu", text, cure=f"{HOST_NETWORK}, or put an MTU of {outer or 1280} into {_engine_file(view)}")
    most = max((answer.bytes for answer in view.server.answers if answer.ok), default=0)
    if view.matters and inner > outer > 0 and most < LARGE:
        return warning(
            "mtu",
            f"{sizes}, and nothing larger than {most} bytes was there to be asked for",
            cure=f"if downloads hang: {HOST_NETWORK}, or an MTU of {outer} in {_engine_file(view)}",
        )
    return ok("mtu", f"{sizes}; a body of {size(most)} came through" if most else sizes)


def _is_certificate(answer: Reach) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in answer.error


def proxy(view: View) -> Check:
    """Whether a proxy is needed, and configured."""
    told = ", ".join(f"{name}={mask_url(value)}" for name, value in sorted(view.proxies.items()))
    if not told:
        return ok("proxy", "no proxy variables")
    if view.pass_proxy:
        if view.matters and view.lost and any(is_loopback(url) for url in view.proxies.values()):
            text = f"{told}: a proxy on loopback, where no bridged container reaches it"
            return failure("proxy", text, cure=HOST_NETWORK)
        return ok("proxy", f"passed on: {told}")
    if view.proxied is not None and any(answer.ok for answer in view.proxied.answers):
        return failure(
            "proxy",
            f"{told}: upstreams answer only through this proxy, and it is not passed on to the server",
            cure="deployer up --set network.proxy=true",
        )
    return ok("proxy", f"not passed on to the server (network.proxy): {told}")


def certificates(view: View) -> Check:
    """Whether the server trusts the certificates of its upstreams; to switch the check off is never the cure."""
    bundle = f"{view.ca_file} is passed on to the server" if view.ca_file else "the bundle that devpi-server ships with"
    refused = [a for place in (view.server, view.host) for a in place.answers if _is_certificate(a)]
    if refused:
        reason = refused[0].error.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return failure(
            "ca",
            f"the certificate of {host_of(refused[0])} is not trusted: {reason or refused[0].error} ({bundle})",
            cure="deployer up --set network.ca_file=/path/to/the/bundle.pem",
        )
    return ok("ca", bundle)


def clock(view: View) -> Check:
    """Compare the clock of this host with those of the upstreams."""
    skews = [answer.skew for answer in view.server.answers if answer.skew is not None]
    if not skews:
        return ok("clock", "no upstream answered to compare it with")
    ahead = min(skews, key=abs)
    if abs(ahead) > CLOCK:
        which = "ahead of" if ahead > 0 else "behind"
        return warning(
            "clock",
            f"{abs(ahead):.0f} s {which} the upstream's: certificates and logins may not be valid",
            cure="timedatectl set-ntp true",
        )
    return ok("clock", f"{abs(ahead):.0f} s from the upstream's")


def upstream(view: View) -> Iterator[Check]:
    """The answer of each upstream to the server."""
    if not view.server.answers:
        # Unknown is not the same as healthy.
        told = failure if view.server.failure else warning
        yield told("upstream", view.server.failure or "there is none", cure="deployer up --upstream URL")
    for answer in view.server.answers:
        yield _upstream(answer)


def _upstream(answer: Reach) -> Check:
    place = mask_url(answer.url)
    if not answer.url:
        return ok("upstream", f"not asked: {answer.error}")
    if answer.stage != "done":
        return failure(
            "upstream",
            f"upstream {place} did not answer the server: {said(answer)}",
            cure="follow the checks above, or choose another upstream with --upstream URL; cached files still install",
        )
    speed = f", {size(answer.bytes)} at {size(answer.bytes / max(answer.seconds, 0.001))}/s"
    text = f"{place} answers {answer.status} in {answer.seconds:.1f} s{speed}"
    match answer.status:
        case 401 | 403:
            return warning("upstream", f"{text}: credentials required", cure="give the mirror its credentials")
        case 429:
            return warning(
                "upstream", f"{text}: rate limit exceeded", cure="wait, or choose another upstream with --upstream URL"
            )
        case 200 | 404:
            return ok("upstream", text)
        case _ if answer.ok:
            return warning("upstream", text, cure="is it the address of a simple index? deployer up --upstream URL")
    return failure("upstream", text, cure="choose another upstream with --upstream URL")


def network(view: View) -> Check:
    """The network mode of the server, current or planned, and whether it works."""
    network = view.network
    if not features(view.engine).bridge:
        return ok("network", network.reason)
    mode = view.running or network.mode
    if view.lost and mode is NetworkMode.BRIDGE:
        url, seen = view.lost[0]
        return failure(
            "network",
            f"this host reaches {urlsplit(url).netloc}, a bridged container does not: {seen}{_dropped(view)}",
            cure="deployer up" if network.mode is NetworkMode.HOST else HOST_NETWORK,
        )
    if view.lost and network.mode is NetworkMode.BRIDGE:
        return warning(
            "network",
            f"the server runs in host mode, and would get a bridge ({network.reason}), which does not work here",
            cure="deployer up --network auto",
        )
    if view.running is not None and view.running is not network.mode:
        return warning(
            "network",
            f"the server runs in {view.running} mode, and would now get {network.mode} ({network.reason})",
            cure="deployer up",
        )
    return ok("network", f"{mode} ({network.reason})" + (_dropped(view) if view.lost else ""))


def _dropped(view: View) -> str:
    """The likely cause when packets from containers are dropped."""
    out = view.way_out
    silent = any(answer.error.startswith("nothing within") for answer in stuck(view.bridge, "connect"))
    if silent and out is not None and out.vpn:
        return f" (what is forwarded to {out.name} is dropped, as by the kill switch of a VPN)"
    return ""


def stale(view: View) -> Iterator[Check]:
    """Whether the network changed since the server was started."""
    if view.inside is None or not view.inside.answers:
        return
    broken = [answer for answer in view.inside.answers if not answer.ok and answer.url]
    works = {answer.url for answer in view.fresh.answers if answer.ok}
    if any(answer.url in works for answer in broken):
        asks, now = ", ".join(view.inside.resolvers), ", ".join(view.fresh.resolvers)
        yield failure(
            "resolver" if asks != now else "restart",
            f"the server asks {asks}, and this host {now} since"
            if asks != now
            else "the server was started in another network, which it has not left yet",
            cure="deployer restart --cold",
        )
    elif view.running is NetworkMode.HOST and view.inside.resolvers != view.name_servers:
        yield warning(
            "resolver",
            f"the server asks {', '.join(view.inside.resolvers)}, this host asks {', '.join(view.name_servers)} since",
            cure="deployer restart --cold",
        )
