"""Look at the network and at what runs, for the checks in ``diagnosis``: every effect of ``doctor`` but its fixes."""

from __future__ import annotations

import json
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
from deployer.image import DEFAULT_BASE, PYTHON
from deployer.operations import upstream_probe
from deployer.operations.prepare import Prepared, decided
from deployer.plan.container import CA_TARGET
from deployer.plan.facts import Measured, Vantage
from deployer.plan.network import REACH_SECONDS, choose, upstreams
from deployer.spec import LABEL_BUILD, THROW_AWAY, Container, Image, State


def state_facts(name: str) -> StateFacts:
    """The state directory of one deployment, or the nearest parent of one that is not there yet."""
    path = state_dir(name)
    there = path
    while not there.exists():
        there = there.parent
    status = there.stat()
    usable = os.access(there, os.W_OK | os.X_OK)
    return StateFacts(
        path=path, mode=status.st_mode & 0o777 if there == path else None, uid=status.st_uid, usable=usable
    )


def images(prepared: Prepared) -> tuple[Image | None, Image | None, str]:
    """The server's image, the one that ours is built on, and its name."""
    wanted, images = prepared.plan.image, prepared.engine.images
    base = prepared.loaded.profile.image.base or DEFAULT_BASE
    if wanted is None or images is None:
        return None, None, base
    found = images.find(wanted.ref)
    own = wanted.own and (found is None or found.labels.get(LABEL_BUILD) != wanted.build)
    return found, images.find(base) if own else found, base


def left_over(engine: Engine, name: str) -> str:
    """The name of a throw-away container that nobody waits for any more; empty when there is none."""
    found = engine.inspect(name + THROW_AWAY)
    return found.name if found is not None and found.ours and not upstream_probe.under_way(name) else ""


def mirrors(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The upstreams of a running server, from what it says of its users; none of those that need a password."""
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
class Told:
    """What the running server says: its upstreams, and whether it asks them."""

    mirrors: tuple[str, ...] = ()
    offline: bool = False


def view(prepared: Prepared, image: Image | None, told: Told) -> View:
    """The network from everywhere that can be asked; from nowhere when the server is not to ask anybody."""
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
        offline=profile.server.offline or told.offline,
    )
    return known if known.offline else _asked(known, prepared, image, told.mirrors)


def _asked(known: View, prepared: Prepared, image: Image | None, mirrors: tuple[str, ...]) -> View:
    profile, current = prepared.loaded.profile, prepared.facts.current
    urls = mirrors or upstreams(profile, prepared.facts)
    running = current if current is not None and current.ours and current.state is State.RUNNING else None
    bridge = _bridge(prepared, image, urls)
    # A container knows the server's own default; this host need not have devpi-server.
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
    words = (PYTHON, "-m", "deployer.server", "reach", f"--timeout={REACH_SECONDS}", *urls)
    try:
        told = upstream_probe.read(prepared.engine.exec(running.name, words))
    except DeployerError:
        return None
    # A server of an older deployer knows no such verb; that it differs, `plan` tells.
    return told if told.answers else None


def _proxied(prepared: Prepared, host: Vantage, urls: Sequence[str]) -> Vantage | None:
    """Through the proxy that the server is not given: only of interest where nothing answers without it."""
    facts = prepared.facts
    if prepared.loaded.profile.network.proxy or not facts.proxies or any(answer.ok for answer in host.answers):
        return None
    spec = prepared.plan.spec
    spec = replace(spec, env=tuple(sorted({**dict(spec.env), **facts.proxies}.items())))
    return upstream_probe.from_host(spec, urls, ca_file=facts.ca_file, ca_target=CA_TARGET)


def _egress(host: Vantage) -> str:
    """The interface that leads to the upstream, as the kernel decides it, rules and all (ip-route(8))."""
    address = next((address for answer in host.answers for address in answer.addresses), "")
    if not address or shutil.which("ip") is None:
        return ""
    try:
        done = Runner().run(("ip", "-j", "route", "get", address), timeout=5)
        return str(json.loads(done.stdout)[0]["dev"])
    except (DeployerError, ValueError, KeyError, IndexError, TypeError):
        return ""
