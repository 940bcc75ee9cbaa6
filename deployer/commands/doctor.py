"""``deployer doctor``: would the main job work here, and if not, what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployer.commands import Overrides, overrides
from deployer.ui import UI, Result

if TYPE_CHECKING:
    from deployer.clients.pip import PipConfig
    from deployer.profile import Profile

MARKS = {"ok": "ok", "warning": "warning", "failure": "FAILURE"}
PROBE = "pip"
"""The project whose page is asked for: one that every public index has, and never the list of all names."""


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    pass


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question: how it went (ok, warning, failure), the evidence, and the cure as a command."""

    name: str
    level: str
    evidence: str
    cure: str = ""


def run(options: Options, ui: UI) -> Result:
    """Check this host and the server, and name each cure.

    Engines, data directory, port, upstream, client files and the server itself. Exit code 0 if `up` would work.
    """
    from deployer.errors import VerificationError

    checks = []
    for check in _checks(options):
        checks.append(check)
        if not ui.silent:
            ui.out.write(_line(check) + "\n")
            ui.out.flush()
    failed = [check.name for check in checks if check.level == "failure"]
    return Result(
        data={"checks": [vars(check) for check in checks]},
        error=VerificationError(f"not in order: {', '.join(failed)}", hint="follow the cures above")
        if failed
        else None,
    )


def _line(check: Check) -> str:
    cure = f"\n{'':20}-> {check.cure}" if check.cure and check.level != "ok" else ""
    return f"{MARKS[check.level].ljust(8)}  {check.name.ljust(10)}{check.evidence}{cure}"


def _checks(options: Options) -> Iterator[Check]:
    from deployer.clients import pip
    from deployer.errors import DeployerError
    from deployer.loader import load

    try:
        profile = load(options.profile, overrides=overrides(options)).profile
        yield Check(name="profile", level="ok", evidence=options.profile)
    except DeployerError as error:
        yield _failure("profile", error)
        return
    yield from _engines(profile)
    yield from _plan(options)
    config = pip.read_config(os.environ)
    yield _upstream(profile, config)
    yield _pip(config)
    yield from _server(options)


def _failure(name: str, error: Exception) -> Check:
    return Check(name=name, level="failure", evidence=str(error), cure=getattr(error, "hint", ""))


def _engines(profile: Profile) -> Iterator[Check]:
    from deployer.engines import detect
    from deployer.errors import DeployerError
    from deployer.spec import EngineName

    try:
        found = detect(profile.engine)
    except DeployerError as error:
        yield _failure("engine", error)
        return
    why = "; ".join(f"{name}: {reason}" for name, reason in found.passed_over)
    yield Check(
        name="engine",
        level="ok",
        evidence=f"{found.info.name} {found.info.version} through {found.info.how}" + (f" ({why})" if why else ""),
    )
    if found.info.name is EngineName.PROCESS:
        yield Check(
            name="limits",
            level="warning",
            evidence="a process has no memory limit, no read-only root and no user of its own",
            cure="install docker, podman or nerdctl for a hardened container",
        )


def _plan(options: Options) -> Iterator[Check]:
    """The data directory, the port and what is unsafe: just what ``up`` would say."""
    from deployer.commands.status import human
    from deployer.errors import DeployerError
    from deployer.prepare import prepare

    try:
        prepared = prepare(options.profile, options.name, overrides=overrides(options))
    except DeployerError as error:
        yield _failure("plan", error)
        return
    facts = prepared.facts
    if facts.data is not None:
        yield Check(
            name="data",
            level="ok",
            evidence=f"{facts.data.path}: {facts.data.content}, {human(facts.data.free_bytes)} free",
        )
    yield Check(name="port", level="ok", evidence=f"{facts.port.number} is free, or ours")
    if facts.ca_file is not None:
        yield Check(name="ca", level="ok", evidence=f"{facts.ca_file} is passed on to the server")
    for warning in prepared.plan.warnings:
        yield Check(name="plan", level="warning", evidence=warning)


def _upstream(profile: Profile, config: PipConfig) -> Check:
    """Ask the upstream for one small page, as the host does: with its CA bundle and its proxy."""
    import ssl
    import time

    import httpx

    from deployer.clients import pip
    from deployer.host import ca_file
    from deployer.prepare import is_ours
    from deployer.secrets import mask_url

    mirrors = [index.url for index in profile.indexes.values() if index.type == "mirror" and index.url]
    found = pip.upstream(config, ours=is_ours)
    url = mirrors[0] if mirrors else found.value if found else ""
    if not url:
        return Check(name="upstream", level="ok", evidence="the server's own default (pip names no other)")
    bundle = ca_file(profile.network.ca_file, pip_cert=config.value("cert"), env=os.environ)
    started = time.monotonic()
    try:
        context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
        with httpx.Client(verify=context, timeout=profile.server.request_timeout, follow_redirects=True) as client:
            status = client.get(f"{url.rstrip('/')}/{PROBE}/", headers={"Accept": "text/html"}).status_code
    except (httpx.HTTPError, OSError) as error:
        return Check(
            name="upstream",
            level="warning",
            evidence=f"{mask_url(url)} does not answer from this host: {error}",
            cure="what is cached still installs; check the network, or choose another with --upstream URL",
        )
    seconds = time.monotonic() - started
    level = "ok" if status in (200, 404) else "warning"
    return Check(name="upstream", level=level, evidence=f"{mask_url(url)} answers {status} in {seconds:.1f} s")


def _pip(config: PipConfig) -> Check:
    from deployer.secrets import mask_url

    value, source = config.effective("index-url")
    where = f"index-url {mask_url(value)} ({source})" if value else "pip's own default index"
    extra, extra_source = config.effective("extra-index-url")
    if extra:
        return Check(
            name="pip",
            level="warning",
            evidence=f"{where}; extra-index-url {mask_url(extra)} ({extra_source}) lets the higher version win",
            cure="remove extra-index-url, and give the index more bases instead",
        )
    return Check(name="pip", level="ok", evidence=where)


def _server(options: Options) -> Iterator[Check]:
    from deployer.commands import status
    from deployer.deployment import find
    from deployer.errors import DeployerError
    from deployer.ui import UI

    try:
        if find(options.name, engine=options.engine) is None:
            yield Check(name="server", level="ok", evidence="not deployed yet")
            return
        result = status.run(status.Options(name=options.name, engine=options.engine), UI(quiet=True))
    except DeployerError as error:
        yield _failure("server", error)
        return
    if result.error:
        yield _failure("server", result.error)
        return
    offline = "; offline, no upstream is asked" if result.data["offline"] else ""
    yield Check(name="server", level="ok", evidence=f"{result.data['url']} is ready and can write{offline}")
    if result.data["front"]:
        yield front(result.data["front"], in_container=result.data["engine"] != "process")


def front(told: str, *, in_container: bool) -> Check:
    """Who answers clients, as the server tells it: ``nginx VERSION``, or ``python: `` and why it is not nginx."""
    if told.startswith("nginx"):
        return Check(name="front", level="ok", evidence=f"{told} sends files and pages, devpi does the rest")
    why = told.partition(": ")[2]
    if "switched off" in why:
        return Check(name="front", level="ok", evidence=f"devpi answers everything itself: {why}")
    cure = "install nginx (Debian: apt install nginx-light), then deployer restart"
    if in_container:
        cure = (
            "deployer image build where apt reaches its mirrors, or on a --base-image that has nginx; then deployer up"
        )
    return Check(name="front", level="warning", evidence=f"devpi answers everything itself, slower: {why}", cure=cure)
