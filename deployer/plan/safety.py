"""Unsafe profiles are refused, risky ones warned about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.errors import Refused
from deployer.plan.facts import Facts
from deployer.plan.limits import restart_policy, wanted_limits
from deployer.plan.network import Network, proxied
from deployer.plan.order import merged, read_by_everybody, warning
from deployer.plan.tls import tls_warnings
from deployer.secrets import mask_url
from deployer.spec import NetworkMode

if TYPE_CHECKING:
    from deployer.profile.models import Profile


def check_safe(profile: Profile, facts: Facts) -> None:
    """Raise Refused with every reason at once."""
    refusals = list(_refusals(profile, facts))
    if refusals:
        (cause, cure), *others = refusals
        raise Refused(cause, hint=cure, details=tuple(f"also: {more} ({hint})" for more, hint in others))


def _refusals(profile: Profile, facts: Facts) -> Iterator[tuple[str, str]]:
    """Every reason to refuse the profile: (cause, cure)."""
    for name, index in profile.indexes.items():
        if not index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield (
                f"{name} would merge the mirrors {' and '.join(mirrors)}: a higher version of a private name on one of "
                "them wins, in any order of bases (dependency confusion)",
                f"set indexes.{name}.type: ordered, or use one mirror and upload the private packages; to accept the "
                f"risk: indexes.{name}.accept_confusion: true",
            )
        if index.type == "ordered" and profile.image.ref:
            yield (
                f"{name}: the server of {profile.image.ref} does not support type ordered, and would merge the bases",
                "remove image.ref: deployer's own image supports it",
            )
        if index.read is not None and profile.image.ref:
            yield (
                f"{name}: the server of {profile.image.ref} would show it to everybody, whatever read: says",
                "remove image.ref: deployer's own image shows an index to its readers only",
            )
        if index.credentials is not None and profile.image.ref:
            yield (
                f"{name}: the server of {profile.image.ref} would show the credentials to every reader",
                "remove image.ref: deployer's own image keeps them secret",
            )
        if index.credentials is not None and not index.url:
            yield (
                f"{name} has credentials and no url: they would go to the index URL of this host's pip",
                f"set indexes.{name}.url",
            )
        if index.url and "@" in urlsplit(index.url).netloc:
            yield (
                f"{name}: devpi shows the credentials in the url {mask_url(index.url)} to every reader",
                f"remove them from the url, and set indexes.{name}.credentials: "
                '{username: USER, password: "env:VARIABLE"}',
            )
    if profile.network.tls.cert and profile.image.ref:
        yield (
            f"network.tls: the server of {profile.image.ref} has no HTTPS of deployer's",
            "remove image.ref: deployer's own image has it; or put a TLS proxy in front",
        )
    follows_pip = any(index.type == "mirror" and not index.url for index in profile.indexes.values())
    if follows_pip and "@" in urlsplit(facts.upstream).netloc:
        yield (
            f"the index URL of this host's pip, {mask_url(facts.upstream)} ({facts.upstream_source}), has credentials, "
            "which devpi would show to every reader",
            "use an upstream without credentials: --upstream URL",
        )
    if profile.server.metrics and not profile.server.metrics.startswith("127.") and not profile.network.expose:
        yield (
            f"metrics at {profile.server.metrics} show the indexes and upstreams to other hosts",
            "serve metrics at 127.0.0.1, or accept the risk with --expose (key network.expose)",
        )
    open_to_all = read_by_everybody(profile.indexes)
    if not profile.network.bind.is_loopback and not profile.network.expose and open_to_all:
        yield (
            f"at {profile.network.bind}, other hosts can read {_some(open_to_all)} without a password",
            "bind to 127.0.0.1, name the readers of each index (read: of the index), or accept the risk with --expose "
            "(key network.expose)",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _read_how(profile: Profile) -> str:
    """What is to be said of reading, when other hosts reach the server."""
    if read_by_everybody(profile.indexes):
        return "reads need no password and "
    return "" if profile.network.tls.cert else "passwords of readers are sent without encryption and "


def warnings(profile: Profile, facts: Facts, network: Network, *, url: str) -> Iterator[str]:
    """Risks of a plan that is not refused. ``url``: the server's URL."""
    if not profile.network.bind.is_loopback:
        yield (
            f"{profile.network.bind} is reachable from other hosts: {_read_how(profile)}logins are not "
            f"throttled{'' if profile.network.tls.cert else '; turn on network.tls, or put a TLS proxy in front'}"
        )
    yield from tls_warnings(facts)
    if facts.data is not None and (place := facts.data.writable_by_all):
        yield (
            f"any user of this host may replace the data: {place} is writable by all; chmod o-w {place}, or choose "
            "another directory with --data PATH"
        )
    for name, index in profile.indexes.items():
        if index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield warning(name, mirrors)
    dropped = [name for name in facts.engine.unheld if getattr(wanted_limits(profile), name)]
    if dropped:
        yield (
            f"{facts.engine.name} can't limit {', '.join(dropped)} here, so the server runs without: a rootless engine "
            "needs cgroups v2, delegated to its user"
        )
    if restart_policy(profile.server.restart, facts.engine) != profile.server.restart:
        yield (
            f"restart: {profile.server.restart} needs {facts.engine.keeps_from}, so the server is not restarted after "
            "a crash or a reboot; to start it at boot: deployer install-service"
        )
    if facts.engine.rootless and facts.lingering is False:
        yield f"a rootless {facts.engine.name} stops at its user's last logout: loginctl enable-linger"
    if network.warning:
        yield network.warning
    if proxied(url, facts.proxies):
        host = urlsplit(url).hostname
        yield f"programs on this host use their proxy for {url}, too: add {host} to NO_PROXY (deployer exec adds it)"
    if network.mode is NetworkMode.HOST and profile.image.ref:
        yield "host network with a foreign image: the image chooses its address and port"
