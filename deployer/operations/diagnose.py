"""The checks of ``doctor``, and the fixes that lose no data."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployer.clients.client import Account
from deployer.clients.known import KNOWN
from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.certificate import seen
from deployer.deployment.find import require
from deployer.deployment.record import read_applied
from deployer.diagnosis import Check, Fix, Level, failure, host, network, ok, service, warning
from deployer.diagnosis.host import StateFacts
from deployer.diagnosis.service import cache, cooldown, database, deleted, former, front, quota, server
from deployer.diagnosis.tls import tls
from deployer.engines import detect
from deployer.errors import DeployerError
from deployer.operations import diagnosis_facts, outside, plugins
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.recorded import as_deployed
from deployer.operations.start import answering
from deployer.operations.status import status
from deployer.plan.plugins import PluginPlan
from deployer.profile.load import load
from deployer.profile.load.overrides import Override
from deployer.profile.models import Profile
from deployer.protocol import ActivityRequest, Deleted
from deployer.spec import LABEL_TLS, EngineName, features


@dataclass(frozen=True, kw_only=True)
class Target:
    """The deployment to check, with overrides of its profile; ``timeout``: seconds that a start may take."""

    profile: str
    name: str
    engine: str = ""
    overrides: Sequence[Override] = ()
    timeout: int = 60


def checks(target: Target, state: StateFacts) -> Iterator[Check]:
    """Run the checks in order; a cause is reported once, by the first check that meets it."""
    try:
        ref, all_overrides = as_deployed(target.profile, target.name, target.overrides)
        profile = load(ref, overrides=all_overrides).profile
    except DeployerError as error:
        yield _failed("profile", error)
        return
    yield ok("profile", ref)
    yield host.state(state, uid=os.getuid())
    if (yield from _engine(profile)):
        answer = yield from _server(target)
        yield from _plan(target, answer)
    yield from _clients(target, profile)


def _failed(name: str, error: DeployerError) -> Check:
    return failure(name, error.message, cure=error.hint)


def _engine(profile: Profile) -> Generator[Check, None, bool]:
    """Check the engine; return whether there is one."""
    try:
        found = detect(profile.engine)
    except DeployerError as error:
        yield _failed("engine", error)
        return False
    yield from host.engine(found.info, passed_over=found.passed_over, uid=os.getuid())
    return True


def _server(target: Target) -> Generator[Check, None, Mapping[str, Any]]:
    """Check the server; return its answers by kind, empty if it is not ready."""
    try:
        found = status(target.name, engine=target.engine)
    except DeployerError as error:
        yield _failed("server", error)
        return {}
    answer = found.answer if found.error is None else {}
    yield server(found.data, found.error, answer.get("identity", {}))
    if found.error is None and found.data.get("front"):
        yield front(found.data["front"], in_container=features(EngineName(found.data["engine"])).containers)
    url = found.deployment.container.labels.get(LABEL_TLS) if found.deployment is not None else None
    if url is not None and found.error is None:
        yield tls(seen(url))
    yield from database(answer.get("identity", {}))
    yield from former(answer.get("identity", {}))
    yield from cache(answer.get("identity", {}))
    yield from deleted(Deleted.parse(answer.get("identity", {}).get("deleted")))
    return answer


def _plan(target: Target, answer: Mapping[str, Any]) -> Iterator[Check]:
    """Check what ``up`` would decide, refuse or warn of, and measure the network."""
    try:
        ref, all_overrides = as_deployed(target.profile, target.name, target.overrides)
        prepared = prepare(ref, target.name, overrides=all_overrides)
        found, base, base_ref = diagnosis_facts.images(prepared)
    except DeployerError as error:
        yield _failed("plan", error)
        return
    plan, facts = prepared.plan, prepared.facts
    if plan.image is not None:
        yield host.image(plan, found, base=base, base_ref=base_ref)
    if named := prepared.loaded.profile.server.plugins:
        yield _plugins(named, plan.plugins)
    yield from host.data(plan, facts)
    yield host.port(plan, facts)
    yield from cooldown(plan.indexes)
    for text in plan.warnings:
        if text != plan.network.warning:
            yield warning("plan", text)
    if left := diagnosis_facts.left_over(prepared.engine, target.name):
        yield host.left_over(left)
    reported = diagnosis_facts.Reported(
        mirrors=diagnosis_facts.mirrors(answer), offline=bool(answer.get("identity", {}).get("offline"))
    )
    yield from network.checks(diagnosis_facts.view(prepared, found, reported))
    yield from _asked(prepared, answer)


def _asked(prepared: Prepared, answer: Mapping[str, Any]) -> Iterator[Check]:
    """Check what only a server of ours can tell: the outside URL, and what is used of quotas."""
    limited = any(index.quota for index in prepared.plan.indexes.values())
    key = prepared.server_dir.proof_key()
    if not answer or key is None or not (limited or prepared.loaded.profile.network.outside_url):
        return
    from deployer.devpi.packages import PackageApi

    with PackageApi(prepared.plan.url) as api:
        yield from outside.checked(prepared, str(answer.get("identity", {}).get("uuid", "")), api)
        try:
            now = api.activity(ActivityRequest(most=0), proof_key=key).get("quotas", {}) if limited else {}
        except DeployerError as error:
            yield _failed("quota", error)
            return
    for name, one in now.items():
        yield quota(name, one["used"], one["limit"])


def _plugins(named: Sequence[str], planned: PluginPlan | None) -> Check:
    """Check the environment of a process; an image has its own."""
    if planned is None or planned.environment is None:
        return host.plugins(named, absent=(), unfit=())
    return host.plugins(named, absent=plugins.absent(planned), unfit=plugins.unfit(planned))


def _clients(target: Target, profile: Profile) -> Iterator[Check]:
    """Check what each known client installs from."""
    try:
        applied = read_applied(target.name)
    except DeployerError as error:
        yield _failed("clients", error)
        return
    account = Account.of(os.environ)
    for name, client in CLIENT_FILES.items():
        if name != "pip" and name not in profile.clients.configure and not KNOWN[name].found(account):
            continue
        config = client.read(account)
        index, source = config.effective(client.index_key)
        facts = service.ClientFacts(
            name=name,
            key=client.index_key,
            index=index,
            source=source,
            variable=source in account.env,
            command=client.command,
            risks=config.warnings,
        )
        simple_url = applied.simple_url if applied else ""
        yield service.client(facts, simple_url=simple_url, configured=name in profile.clients.configure)


def fixed(check: Check, target: Target) -> Check:
    """Apply the fix of ``check``; return the check with what was done, or with the reason of the failure."""
    path = Path(check.target)
    try:
        match check.fix:
            case Fix.CLOSE_STATE | Fix.CLOSE_DATA:
                path.chmod(0o700)
                done = f"chmod 0700 {path}"
            case Fix.REMOVE_LEFT_OVER:
                done = _remove_left_over(check.target, target)
            case _:
                done = _start(target)
    except (DeployerError, OSError) as error:
        return replace(check, evidence=f"{check.evidence}; fix failed: {error}")
    return replace(check, level=Level.OK, evidence=f"{check.evidence}; fixed: {done}", cure="")


def _remove_left_over(name: str, target: Target) -> str:
    ref, all_overrides = as_deployed(target.profile, target.name, target.overrides)
    engine = detect(load(ref, overrides=all_overrides).profile.engine).engine
    engine.remove(name)
    return f"{engine.name} rm --force {name}"


def _start(target: Target) -> str:
    deployment = require(target.name, engine=target.engine)
    deployment.engine.start(target.name)
    ready = answering(deployment, timedelta(seconds=target.timeout))
    ready.api.close()
    return f"{target.name} started, {deployment.url} answers"
