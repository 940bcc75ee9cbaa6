"""What is refused because it would not be safe, and what is only warned about."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deployer.errors import Refused
from deployer.plan.facts import Facts
from deployer.plan.limits import restart_policy, wanted_limits
from deployer.plan.network import Network, proxied
from deployer.plan.order import merged, warning
from deployer.profile.models import Profile
from deployer.secrets import mask_url
from deployer.spec import NetworkMode


def check_safe(profile: Profile, facts: Facts) -> None:
    """Raise Refused with every reason at once."""
    refusals = list(_refusals(profile, facts))
    if refusals:
        (cause, cure), *others = refusals
        raise Refused(cause, hint=cure, details=tuple(f"also: {more} ({hint})" for more, hint in others))


def _refusals(profile: Profile, facts: Facts) -> Iterator[tuple[str, str]]:
    """Every reason not to go on, as (cause, cure)."""
    for name, index in profile.indexes.items():
        if not index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield (
                f"{name} would merge the mirrors {' and '.join(mirrors)}: whoever publishes a higher version of a "
                "private name on one of them wins, in any order of bases",
                f"make the order real (indexes.{name}.type: ordered), or give it one mirror and upload the private "
                "packages; accept_confusion: true on it insists",
            )
        if index.type == "ordered" and profile.image.ref:
            yield (
                f"{name} is of type ordered, which the server of {profile.image.ref} does not know: it would merge",
                "leave image.ref out: deployer's own image knows it",
            )
        if index.credentials is not None and profile.image.ref:
            yield (
                f"{name} has credentials, which the server of {profile.image.ref} would show to all who ask",
                "leave image.ref out: deployer's own image keeps them apart",
            )
        if index.credentials is not None and not index.url:
            yield (
                f"{name} has credentials and no url: they would go to whatever this host's pip installs from",
                f"name the upstream that they are for: indexes.{name}.url",
            )
        if index.url and "@" in urlsplit(index.url).netloc:
            yield (
                f"{name}: the url {mask_url(index.url)} holds credentials, which devpi shows to every reader",
                f"leave user and password out of it, and name them by indexes.{name}.credentials: "
                '{username: USER, password: "env:VARIABLE"}',
            )
    follows_pip = any(index.type == "mirror" and not index.url for index in profile.indexes.values())
    if follows_pip and "@" in urlsplit(facts.upstream).netloc:
        yield (
            f"the host's pip installs from {mask_url(facts.upstream)} ({facts.upstream_source}), an address with "
            "credentials, which devpi would show to every reader",
            "name an upstream without credentials: --upstream URL",
        )
    if profile.server.metrics and not profile.server.metrics.startswith("127.") and not profile.network.expose:
        yield (
            f"{profile.server.metrics} can be reached by others, who can read which indexes and upstreams there are",
            "serve metrics at 127.0.0.1, or insist with --expose (key network.expose)",
        )
    if not profile.network.bind.is_loopback and not profile.network.expose:
        yield (
            f"{profile.network.bind} can be reached by others, who can read every index without a password",
            "bind to 127.0.0.1, or insist with --expose (key network.expose)",
        )


def warnings(profile: Profile, facts: Facts, network: Network, *, url: str) -> Iterator[str]:
    """What is done all the same; ``url``: where the server answers."""
    if not profile.network.bind.is_loopback:
        yield (
            f"{profile.network.bind} is reachable by others: reads need no password and logins are not throttled; "
            "put a TLS proxy in front"
        )
    for name, index in profile.indexes.items():
        if index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield warning(name, mirrors)
    dropped = [name for name in facts.engine.unheld if getattr(wanted_limits(profile), name)]
    if dropped:
        yield (
            f"{facts.engine.name} can't limit {', '.join(dropped)} here, so the server runs without: a rootless engine "
            "needs control groups of version 2, delegated to its user"
        )
    if restart_policy(profile.server.restart, facts.engine) != profile.server.restart:
        yield (
            f"restart: {profile.server.restart} needs {facts.engine.keeps_from}, so nothing starts the server again "
            "when it dies or the host restarts: deployer install-service does at boot"
        )
    if facts.engine.rootless and facts.lingering is False:
        yield f"a rootless {facts.engine.name} ends with its user's last logout: loginctl enable-linger"
    if network.warning:
        yield network.warning
    if proxied(url, facts.proxies):
        host = urlsplit(url).hostname
        yield f"programs here ask their proxy for {url}, too: add {host} to NO_PROXY (deployer exec does so by itself)"
    if network.mode is NetworkMode.HOST and profile.image.ref:
        yield "host network with an image that is not ours: it chooses its own address and port"
