"""Gather the facts for the checks in ``diagnosis``: the network, images, and what runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployer.diagnosis.host import StateFacts
from deployer.diagnosis.view import View
from deployer.engines.base import Engine
from deployer.errors import DeployerError
from deployer.host import routes
from deployer.host.runner import Runner
from deployer.host.state_dir import state_dir
from deployer.image import DEFAULT_BASE
from deployer.operations import upstream_probe
from deployer.operations.prepare import Prepared, decided
from deployer.plan.container import CA_TARGET
from deployer.plan.facts import Measured, Vantage
from deployer.plan.network import REACH_SECONDS, choose, upstreams
from deployer.protocol import IMAGE_PYTHON, parsed
from deployer.spec import LABEL_BUILD, THROW_AWAY, Container, Image, State


def state_facts(name: str) -> StateFacts:
    """Return facts of a deployment's state directory, or of its nearest existing parent."""
    path = state_dir(name)
    existing = path
    while not existing.exists():
        existing = existing.parent
    status = existing.stat()
    usable = os.access(existing, os.W_OK | os.X_OK)
    return StateFacts(
        path=path, mode=status.st_mode & 0o777 if existing == path else None, uid=status.st_uid, usable=usable
    )


def images(prepared: Prepared) -> tuple[Image | None, Image | None, str]:
    """Return the server's image, the base of our own image, and the name of that base."""
    wanted, images = prepared.plan.image, prepared.engine.images
    base = prepared.loaded.profile.image.base or DEFAULT_BASE
    if wanted is None or images is None:
        return None, None, base
    found = images.find(wanted.ref)
    own = wanted.own and (found is None or found.labels.get(LABEL_BUILD) != wanted.build)
    return found, images.find(base) if own else found, base


def left_over(engine: Engine, name: str) -> str:
    """Return the name of a stale throw-away container; empty if there is none."""
    found = engine.inspect(name + THROW_AWAY)
    return found.name if found is not None and found.ours and not upstream_probe.under_way(name) else ""


def mirrors(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the upstreams in a server's answer, except those with credentials in the URL."""
    found: dict[str, None] = {}
    for user in _values(answer, "users", "result"):
        for index in _values(user, "indexes"):
            url = _at(index, "mirror_url")
            if isinstance(url, str) and url.startswith(("http://", "https://")) and "@" not in url:
                found[url] = None
    return tuple(found)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _values(value: Any, *keys: str) -> list[Any]:
    found = _at(value, *keys)
    return list(found.values()) if isinstance(found, dict) else []


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What the running server reports: its upstreams, and whether it is offline."""

    mirrors: tuple[str, ...] = ()
    offline: bool = False


def view(prepared: Prepared, image: Image | None, reported: Reported) -> View:
    """Return the network as seen from host, bridge and server; an offline server is not measured."""
    profile, facts = prepared.loaded.profile, prepared.facts
    known = View(
        engine=prepared.plan.engine.name,
        network=prepared.plan.network,
        host=Vantage(),
        interfaces=routes.interfaces(),
        default_route=routes.default_interface(),
        name_servers=routes.name_servers(),
        proxies=facts.proxies,
        pass_proxy=profile.network.proxy,
        ca_file=facts.ca_file,
        offline=profile.server.offline or reported.offline,
    )
    return known if known.offline else _measured(known, prepared, image, reported.mirrors)


def _measured(known: View, prepared: Prepared, image: Image | None, mirrors: tuple[str, ...]) -> View:
    profile, current = prepared.loaded.profile, prepared.facts.current
    urls = mirrors or upstreams(profile, prepared.facts)
    running = current if current is not None and current.ours and current.state is State.RUNNING else None
    bridge = _bridge(prepared, image, urls)
    # Only the container knows devpi-server's default upstream; this host may lack devpi-server.
    urls = tuple(answer.url for answer in bridge.answers if answer.url) if bridge and bridge.answers else urls
    host = _host(prepared, urls)
    measured = Measured(bridge=bridge, host=host) if bridge is not None else None
    if measured is not None and not mirrors:
        prepared = decided(prepared, measured)
    facts = replace(prepared.facts, measured=measured)
    return replace(
        known,
        network=choose(profile, facts, profile_name=prepared.plan.profile_name),
        host=host,
        bridge=bridge,
        inside=_inside(prepared, running, urls) if running is not None else None,
        proxied=_proxied(prepared, host, urls),
        running=running.network if running is not None else None,
        egress=_egress(host),
    )


def _bridge(prepared: Prepared, image: Image | None, urls: Sequence[str]) -> Vantage | None:
    wanted = prepared.plan.image
    if wanted is None or not wanted.own or image is None or image.labels.get(LABEL_BUILD) != wanted.build:
        return None
    try:
        return upstream_probe.from_bridge(prepared.plan.spec, prepared.engine, urls, ca_target=CA_TARGET)
    except DeployerError as error:
        return Vantage(failure=error.message)


def _host(prepared: Prepared, urls: Sequence[str]) -> Vantage:
    return upstream_probe.from_host(prepared.plan.spec, urls, ca_file=prepared.facts.ca_file, ca_target=CA_TARGET)


def _inside(prepared: Prepared, running: Container, urls: Sequence[str]) -> Vantage | None:
    if prepared.plan.image is None or not prepared.plan.image.own:
        return None
    words = (*IMAGE_PYTHON, "-m", "deployer.server", "reach", f"--timeout={REACH_SECONDS}", *urls)
    try:
        vantage = upstream_probe.read(prepared.engine.exec(running.name, words))
    except DeployerError:
        return None
    # A server of an older deployer lacks this verb; `plan` reports that difference.
    return vantage if vantage.answers else None


def _proxied(prepared: Prepared, host: Vantage, urls: Sequence[str]) -> Vantage | None:
    """Ask through a proxy that the server does not get; None if the upstream answers without it."""
    facts = prepared.facts
    if prepared.loaded.profile.network.proxy or not facts.proxies or any(answer.ok for answer in host.answers):
        return None
    spec = prepared.plan.spec
    spec = replace(spec, env=tuple(sorted({**dict(spec.env), **facts.proxies}.items())))
    return upstream_probe.from_host(spec, urls, ca_file=facts.ca_file, ca_target=CA_TARGET)


def _egress(host: Vantage) -> str:
    """Return the interface of the route to the upstream, with policy rules (ip-route(8)); empty if unknown."""
    address = next((address for answer in host.answers for address in answer.addresses), "")
    if not address or shutil.which("ip") is None:
        return ""
    try:
        done = Runner().run(("ip", "-j", "route", "get", address), timeout=5)
        return str(parsed(done.stdout)[0]["dev"])
    except (DeployerError, ValueError, KeyError, IndexError, TypeError):
        return ""
