"""``deployer doctor``: would the main job work here, and if not, what to do about it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from deployer.commands import Exclusive, Overrides, as_deployed
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.diagnosis import Check
    from deployer.diagnosis.host import StateFacts
    from deployer.errors import DeployerError
    from deployer.profile.models import Profile

START_SECONDS = 60
_TOLD = ("name", "level", "evidence", "cure")
MARKS = {"ok": "ok", "warning": "warning", "failure": "FAILURE"}
INDENT = 20


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    fix: Annotated[
        bool, Option("--fix", help="Do the cures that can't lose anything, and say each; nothing else is changed.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Check this host and the server, and name each cure.

    Engine, image, data, network, upstream, pip and the server itself. Exit code 0 only if the main job works here: to
    start the server, and to install through it.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import VerificationError
    from deployer.operations.diagnose import state_facts

    checks: list[Check] = []
    state = state_facts(options.name)  # to take a lock closes it to others
    with ExitStack() as held:
        if options.fix:
            held.enter_context(hold(options.name, wait=options.wait))
        for check in _checks(options, state):
            checks.append(_fixed(check, options) if options.fix and check.fix else check)
            if not ui.silent:
                ui.line(ui.address(_line(checks[-1])))
    failed = [check.name for check in checks if check.level == "failure"]
    return Result(
        data={"checks": [{key: ui.address(getattr(check, key)) for key in _TOLD} for check in checks]},
        error=VerificationError(f"not in order: {', '.join(failed)}", hint="follow the cures above")
        if failed
        else None,
    )


def _line(check: Check) -> str:
    from deployer.secrets import mask

    cure = f"\n{'':{INDENT}}-> {check.cure}" if check.cure and check.level != "ok" else ""
    return mask(f"{MARKS[check.level].ljust(8)}  {check.name.ljust(10)}{check.evidence}{cure}")


def _checks(options: Options, state: StateFacts) -> Iterator[Check]:
    from deployer.diagnosis import host, ok
    from deployer.errors import DeployerError
    from deployer.profile.load import load

    try:
        ref, put_over = as_deployed(options)
        profile = load(ref, overrides=put_over).profile
    except DeployerError as error:
        yield _failed("profile", error)
        return
    yield ok("profile", ref)
    yield host.state(state, uid=os.getuid())
    if (yield from _engine(profile)):
        answer = yield from _server(options)
        yield from _plan(options, answer)
    yield _pip(options, profile)


def _failed(name: str, error: DeployerError) -> Check:
    from deployer.diagnosis import failure

    return failure(name, error.message, cure=error.hint)


def _engine(profile: Profile) -> Generator[Check, None, bool]:
    """Whether there is one."""
    from deployer.diagnosis import host
    from deployer.engines import detect
    from deployer.errors import DeployerError

    try:
        found = detect(profile.engine)
    except DeployerError as error:
        yield _failed("engine", error)
        return False
    yield from host.engine(found.info, passed_over=found.passed_over, uid=os.getuid())
    return True


def _server(options: Options) -> Generator[Check, None, dict[str, Any]]:
    """What runs; what it says of itself."""
    from deployer.commands import status
    from deployer.deployment.find import find
    from deployer.diagnosis.service import front, server
    from deployer.errors import DeployerError

    try:
        deployment = find(options.name, engine=options.engine)
        asked = status.Options(name=options.name, engine=options.engine)
        result = status.run(asked, UI(quiet=True))
    except DeployerError as error:
        yield _failed("server", error)
        return {}
    answer = status.ask(deployment.url) if deployment is not None and result.error is None else {}
    yield server(result.data, result.error, answer.get("identity", {}))
    if result.error is None and result.data.get("front"):
        yield front(result.data["front"], in_container=result.data["engine"] != "process")
    return answer


def _plan(options: Options, answer: dict[str, Any]) -> Iterator[Check]:
    """All that ``up`` would decide on, refuse or warn of; and the network, which is asked anew."""
    from deployer.diagnosis import host, network, warning
    from deployer.errors import DeployerError
    from deployer.operations import diagnose
    from deployer.operations.prepare import prepare

    try:
        ref, put_over = as_deployed(options)
        prepared = prepare(ref, options.name, overrides=put_over)
        found, base, base_ref = diagnose.images(prepared)
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
    if left := diagnose.left_over(prepared.engine, options.name):
        yield host.left_over(left)
    told = diagnose.Told(mirrors=diagnose.mirrors(answer), offline=bool(answer.get("identity", {}).get("offline")))
    yield from network.checks(diagnose.view(prepared, found, told))


def _pip(options: Options, profile: Profile) -> Check:
    from deployer.clients import pip
    from deployer.deployment.record import read_applied
    from deployer.diagnosis import service
    from deployer.errors import DeployerError

    config = pip.read_config(os.environ)
    index, source = config.effective("index-url")
    try:
        applied = read_applied(options.name)
    except DeployerError as error:
        return _failed("pip", error)
    return service.pip(
        service.PipFacts(index=index, source=source, risks=config.warnings),
        simple_url=applied.simple_url if applied else "",
        configured="pip" in profile.clients.configure,
    )


def _fixed(check: Check, options: Options) -> Check:
    """The check after its cure was done, which is told; or with the reason why it could not be."""
    from deployer.diagnosis import Fix, Level
    from deployer.errors import DeployerError

    target = Path(check.target)
    try:
        match check.fix:
            case Fix.CLOSE_STATE | Fix.CLOSE_DATA:
                target.chmod(0o700)
                done = f"chmod 0700 {target}"
            case Fix.REMOVE_LEFT_OVER:
                done = _remove_left_over(check.target, options)
            case _:
                done = _start(options)
    except (DeployerError, OSError) as error:
        return replace(check, evidence=f"{check.evidence}; could not be fixed: {error}")
    return replace(check, level=Level.OK, evidence=f"{check.evidence}; fixed: {done}", cure="")


def _remove_left_over(name: str, options: Options) -> str:
    from deployer.engines import detect
    from deployer.profile.load import load

    ref, put_over = as_deployed(options)
    engine = detect(load(ref, overrides=put_over).profile.engine).engine
    engine.remove(name)
    return f"{engine.name} rm --force {name}"


def _start(options: Options) -> str:
    from deployer.commands.start import answering
    from deployer.deployment.find import require

    deployment = require(options.name, engine=options.engine)
    deployment.engine.start(options.name)
    ready = answering(deployment, timedelta(seconds=options.timeout or START_SECONDS))
    ready.api.close()
    return f"{options.name} started, {deployment.url} answers"
