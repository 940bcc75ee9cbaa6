"""One member on this host: planned, started, and stopped like any deployment."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from deployer.deployment.cluster import member_name
from deployer.deployment.find import Deployment
from deployer.deployment.record import Applied, forget, read_applied, write_applied
from deployer.deployment.server_dir import ServerDir
from deployer.engines.base import Engine
from deployer.errors import DeployerError
from deployer.host.gather import mark_used, port_facts, used_by
from deployer.host.state_dir import state_root
from deployer.host.untrusted import Untrusted
from deployer.operations import option_files
from deployer.operations.apply import Done, ensure_container, is_current, make_data, settle, undo
from deployer.operations.cluster.host.derived import GIVEN_TARGET, LOOPBACK, member_words, of_member, with_words
from deployer.operations.cluster.host.shared import Shared
from deployer.operations.plugins import have_environment
from deployer.operations.prepare import Prepared, prepare_loaded
from deployer.operations.start import ROLLBACK, answering
from deployer.plan.facts import Facts, Usage
from deployer.profile.load import Loaded
from deployer.readiness import Ready, wait
from deployer.spec import PREVIOUS, Image, State

_TRIES = 20
"""Free ports that are tried: a port is free until somebody has it, and may be chosen twice."""


@dataclass(frozen=True, kw_only=True)
class HostMember:
    """A member as it is planned, and the container that it has now."""

    number: int
    prepared: Prepared

    @property
    def name(self) -> str:
        return self.prepared.plan.name

    @property
    def url(self) -> str:
        return self.prepared.plan.url

    @property
    def engine(self) -> Engine:
        return self.prepared.engine

    @property
    def server_dir(self) -> ServerDir:
        return self.prepared.server_dir

    @property
    def runs(self) -> bool:
        current = self.prepared.current
        return current is not None and current.state is State.RUNNING

    @property
    def is_current(self) -> bool:
        """Whether it runs as planned, and is on record: a run may have been killed before."""
        prepared = self.prepared
        return (
            read_applied(self.name) is not None
            and self.runs
            and not prepared.plan.data.begin
            and is_current(prepared.plan, prepared.current, prepared.image)
        )

    def following(self, cluster: str, *, primary: int, url: str) -> HostMember:
        """The same with its role. ``url``: of the primary."""
        prepared = self.prepared
        facts, profile, inside = prepared.facts, prepared.loaded.profile, prepared.plan.engine.features.containers
        shared = Shared(name=cluster)
        given = shared.directory_of(self.name) if inside else None
        words = member_words(
            profile,
            number=self.number,
            primary=primary,
            primary_url=url,
            given=GIVEN_TARGET if inside else str(shared.directory),
        )
        spec = with_words(prepared.plan.spec, words, given=given, relabel=facts.selinux)
        return replace(self, prepared=replace(prepared, plan=replace(prepared.plan, spec=spec)))


def planned(loaded: Loaded, cluster: str, number: int, *, taken: Collection[str]) -> HostMember:
    """Plan a member, still without its role. ``taken``: addresses of other members.

    Raises as :func:`deployer.operations.prepare.prepare`.
    """
    profile = of_member(loaded.profile, cluster, number, home=Path.home(), uid=os.getuid())
    own = replace(loaded, profile=profile)
    for _ in range(_TRIES):
        found = HostMember(
            number=number, prepared=prepare_loaded(own, member_name(cluster, number), adjust=_with_free_port)
        )
        if found.url not in taken:
            break
    return found


def _with_free_port(facts: Facts) -> Facts:
    """Another port where a member that has ended has lost its own: nobody but its balancer has to know it."""
    return facts if facts.port.free else replace(facts, port=port_facts(IPv4Address(LOOPBACK), 0))


def launch(member: HostMember, cluster: str, image: Image | None, rollback: ExitStack) -> Done:
    """Have a member run as planned; don't wait until it answers."""
    prepared, engine = member.prepared, member.engine
    plan = prepared.plan
    files = option_files.contents(plan.plugins, env=os.environ, home=Path.home())
    current = settle(plan.name, engine, prepared.current, prepared.previous)
    have_environment(plan.plugins)
    option_files.write(plan.plugins, files, rollback)
    if plan.engine.features.containers:
        Shared(name=cluster).give(plan.name)
    rollback.callback(_await_former, member)
    make_data(plan.name, plan.data, engine, rollback)
    if current is not None and current.state is State.RUNNING and plan.data.begin:
        engine.stop(plan.name, timeout=plan.spec.stop_timeout)  # its data is gone
        current = engine.inspect(plan.name)
    return ensure_container(plan, engine, current, image, rollback)


def _recorded_as(name: str, former: Applied | None) -> None:
    if former is None:
        forget(name)
    else:
        write_applied(name, former)


def _used_as(path: Path, former: Usage) -> None:
    with suppress(OSError, Untrusted):
        mark_used(path, former)


def commit(member: HostMember) -> None:
    """Remove the former container of a member that answers."""
    member.engine.remove(member.name + PREVIOUS)


def _await_former(member: HostMember) -> None:
    """After a rollback: a member that ran before is ready again."""
    if member.runs and (former := member.engine.inspect(member.name)) is not None:
        try:
            answering(Deployment(name=member.name, engine=member.engine, container=former), ROLLBACK).api.close()
        except DeployerError:
            return  # the failure that caused the rollback is reported


def answered(member: HostMember) -> Ready:
    """Wait until a launched member answers, and proves that it runs on its data. Raises NotReadyError."""
    plan, place = member.prepared.plan, member.server_dir
    return wait(
        url=plan.url,
        engine=member.engine,
        name=plan.name,
        expected_uuid=place.uuid,
        proof_key=place.proof_key,
        credentials=None,
        index=None,
        deadline=plan.ready_timeout,
        on_stage=lambda stage, seconds: None,
    )


def record(member: HostMember, uuid: str, rollback: ExitStack) -> None:
    """Record the data of a member that answers. ``uuid``: of data that must not get lost; empty for a replica's."""
    prepared, plan = member.prepared, member.prepared.plan
    undo(rollback, _recorded_as, plan.name, read_applied(plan.name))
    path = member.server_dir.path
    if path is not None:
        with suppress(OSError, Untrusted):  # only the container can write there
            if (former := used_by(path)) is not None:
                rollback.callback(_used_as, path, former)
            mark_used(path, Usage(name=plan.name, state=str(state_root()), uid=prepared.facts.uid))
    write_applied(
        plan.name,
        Applied(
            profile_name=plan.profile_name,
            profile_ref=prepared.loaded.ref,
            engine=str(plan.engine.name),
            simple_url=plan.simple_url,
            profile=prepared.loaded.profile.model_dump(mode="json"),
            data_source=plan.data.source,
            data_uuid=uuid,
        ),
    )
