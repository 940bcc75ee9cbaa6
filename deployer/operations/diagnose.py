"""Would the main job work on this host: every check of ``doctor``, and the cures that can't lose anything."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployer.clients.client import Account
from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.find import require
from deployer.deployment.record import read_applied
from deployer.diagnosis import Check, Fix, Level, failure, host, network, ok, service, warning
from deployer.diagnosis.host import StateFacts
from deployer.diagnosis.service import front, server
from deployer.engines import detect
from deployer.errors import DeployerError
from deployer.operations import diagnosis_facts
from deployer.operations.prepare import prepare
from deployer.operations.recorded import as_deployed
from deployer.operations.start import answering
from deployer.operations.status import status
from deployer.profile.load import load
from deployer.profile.load.overrides import Override
from deployer.profile.models import Profile
from deployer.spec import EngineName, features


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which deployment is looked at, with what over its profile; ``timeout``: seconds that a start may take."""

    profile: str
    name: str
    engine: str = ""
    overrides: Sequence[Override] = ()
    timeout: int = 60


def checks(asked: Asked, state: StateFacts) -> Iterator[Check]:
    """Check one thing after the other: each cause is told once, where it is first met."""
    try:
        ref, put_over = as_deployed(asked.profile, asked.name, asked.overrides)
        profile = load(ref, overrides=put_over).profile
    except DeployerError as error:
        yield _failed("profile", error)
        return
    yield ok("profile", ref)
    yield host.state(state, uid=os.getuid())
    if (yield from _engine(profile)):
        answer = yield from _server(asked)
        yield from _plan(asked, answer)
    yield from _clients(asked, profile)


def _failed(name: str, error: DeployerError) -> Check:
    return failure(name, error.message, cure=error.hint)


def _engine(profile: Profile) -> Generator[Check, None, bool]:
    """Whether there is one."""
    try:
        found = detect(profile.engine)
    except DeployerError as error:
        yield _failed("engine", error)
        return False
    yield from host.engine(found.info, passed_over=found.passed_over, uid=os.getuid())
    return True


def _server(asked: Asked) -> Generator[Check, None, Mapping[str, Any]]:
    """What runs; what it says of itself."""
    try:
        found = status(asked.name, engine=asked.engine)
    except DeployerError as error:
        yield _failed("server", error)
        return {}
    answer = found.answer if found.error is None else {}
    yield server(found.data, found.error, answer.get("identity", {}))
    if found.error is None and found.data.get("front"):
        yield front(found.data["front"], in_container=features(EngineName(found.data["engine"])).containers)
    return answer


def _plan(asked: Asked, answer: Mapping[str, Any]) -> Iterator[Check]:
    """All that ``up`` would decide on, refuse or warn of; and the network, which is asked anew."""
    try:
        ref, put_over = as_deployed(asked.profile, asked.name, asked.overrides)
        prepared = prepare(ref, asked.name, overrides=put_over)
        found, base, base_ref = diagnosis_facts.images(prepared)
    except DeployerError as error:
        yield _failed("plan", error)
        return
    plan, facts = prepared.plan, prepared.facts
    if plan.image is not None:
        yield host.image(plan, found, base=base, base_ref=base_ref)
    yield from host.data(plan, facts)
    yield host.port(plan, facts)
    for text in plan.warnings:
        if text != plan.network.warning:
            yield warning("plan", text)
    if left := diagnosis_facts.left_over(prepared.engine, asked.name):
        yield host.left_over(left)
    told = diagnosis_facts.Told(
        mirrors=diagnosis_facts.mirrors(answer), offline=bool(answer.get("identity", {}).get("offline"))
    )
    yield from network.checks(diagnosis_facts.view(prepared, found, told))


def _clients(asked: Asked, profile: Profile) -> Iterator[Check]:
    """Check what each known client installs from."""
    try:
        applied = read_applied(asked.name)
    except DeployerError as error:
        yield _failed("clients", error)
        return
    account = Account.of(os.environ)
    for name, client in CLIENT_FILES.items():
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


def fixed(check: Check, asked: Asked) -> Check:
    """The check after its cure was done, which is told; or with the reason why it could not be."""
    target = Path(check.target)
    try:
        match check.fix:
            case Fix.CLOSE_STATE | Fix.CLOSE_DATA:
                target.chmod(0o700)
                done = f"chmod 0700 {target}"
            case Fix.REMOVE_LEFT_OVER:
                done = _remove_left_over(check.target, asked)
            case _:
                done = _start(asked)
    except (DeployerError, OSError) as error:
        return replace(check, evidence=f"{check.evidence}; could not be fixed: {error}")
    return replace(check, level=Level.OK, evidence=f"{check.evidence}; fixed: {done}", cure="")


def _remove_left_over(name: str, asked: Asked) -> str:
    ref, put_over = as_deployed(asked.profile, asked.name, asked.overrides)
    engine = detect(load(ref, overrides=put_over).profile.engine).engine
    engine.remove(name)
    return f"{engine.name} rm --force {name}"


def _start(asked: Asked) -> str:
    deployment = require(asked.name, engine=asked.engine)
    deployment.engine.start(asked.name)
    ready = answering(deployment, timedelta(seconds=asked.timeout))
    ready.api.close()
    return f"{asked.name} started, {deployment.url} answers"
