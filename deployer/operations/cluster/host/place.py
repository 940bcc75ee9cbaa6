"""This host as the place of a cluster: implements :class:`deployer.clusters.base.Cluster`."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.clusters.base import Https, Identity, Member, PlaceName, Wanted, in_image
from deployer.deployment.certificate import forget as forget_certificate
from deployer.deployment.certificate import wait_served
from deployer.deployment.cluster import HERE, Kept, forget_kept, member_name, read_kept, write_kept
from deployer.deployment.find import Deployment
from deployer.deployment.passwords import ROOT, Passwords
from deployer.deployment.record import forget, read_applied
from deployer.deployment.server_dir import ServerDir
from deployer.engines import open_engine
from deployer.engines.base import Engine
from deployer.errors import ConflictError, NotReadyError, Refused
from deployer.host.state_dir import state_dir
from deployer.operations.apply import set_aside, settle, undo
from deployer.operations.cluster.host import balancer
from deployer.operations.cluster.host.certificate import Certificate
from deployer.operations.cluster.host.derived import answering_to, check, leads, whole
from deployer.operations.cluster.host.member import HostMember, answered, commit, launch, planned, record
from deployer.operations.cluster.host.shared import Shared
from deployer.operations.cluster.standing import await_synced
from deployer.operations.differences import differences
from deployer.operations.down import down as down_one
from deployer.operations.images import fits, have_image
from deployer.operations.prepare import Prepared, prepare_loaded
from deployer.operations.purge import remove
from deployer.operations.tls import Renewed, await_served
from deployer.protocol import BALANCER_HEADER, LIVE_ROUTE, OWN_PYTHON
from deployer.readiness import check_ours, wait
from deployer.readiness.watch import Watch
from deployer.secrets import Secret, mask
from deployer.spec import (
    LABEL_TLS,
    LABEL_URL,
    PREVIOUS,
    Container,
    ContainerSpec,
    EngineName,
    ExecResult,
    Image,
    State,
    features,
)

if TYPE_CHECKING:
    from deployer.profile.load import Loaded
    from deployer.ui.output import UI

STOP = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What is wanted on this host. ``whole``: the deployment as clients see it; ``surplus``: members to remove;
    ``former``: number of the former primary, which has its data still; -1 without."""

    whole: Prepared
    members: tuple[HostMember, ...]
    primary: int
    balancer: ContainerSpec
    certificate: Certificate
    surplus: tuple[int, ...]
    former: int

    @property
    def leader(self) -> HostMember:
        return self.members[self.primary]

    @property
    def due(self) -> tuple[HostMember, ...]:
        """The members that do not run as planned. The former primary waits until its data are given up."""
        return tuple(member for member in self.members if not member.is_current and member.number != self.former)

    @property
    def leads(self) -> bool:
        """Whether the primary runs as the primary, so that replicas can be changed before it."""
        current = self.leader.prepared.current
        return self.leader.runs and current is not None and leads(current.command, self.primary)

    @property
    def single(self) -> Container | None:
        """The server of a deployment that was no cluster so far."""
        current = self.whole.current
        return None if current is None or balancer.is_balancer(current) else current

    @property
    def balances(self) -> bool:
        """Whether the balancer runs as planned."""
        return balancer.runs_as(self.balancer, self.whole.current)


class HostCluster:
    """The cluster ``name``. ``loaded``: its profile, for :meth:`differences` and :meth:`apply` alone."""

    place = PlaceName.HOST

    def __init__(self, name: str, ui: UI, *, loaded: Loaded | None = None) -> None:
        self._name, self._ui, self._loaded = name, ui, loaded
        self._shared = Shared(name=name)
        self._public = ""

    # What there is

    @property
    def _kept(self) -> Kept:
        return read_kept(self._name) or Kept(place=HERE)

    @cached_property
    def _engine(self) -> Engine:
        """The engine of its members, by the record, else by the profile."""
        applied, kept = read_applied(self._name), read_kept(self._name)
        known = (kept.engine if kept else "") or (applied.engine if applied else "")
        if known in set(EngineName):
            return open_engine(EngineName(known))
        if self._loaded is not None:
            return self._whole(self._loaded).engine
        raise ConflictError(f"there is no deployment named {self._name!r}", hint="deployer up")

    def probe(self) -> str:
        info = self._engine.probe()
        return f"{info.name} {info.version}"

    def identity(self) -> Identity | None:
        kept = read_kept(self._name)
        return None if kept is None else Identity(primary=kept.primary, uuid=kept.uuid)

    def remember(self, identity: Identity) -> None:
        kept = self._kept
        former = kept.primary if kept.primary != identity.primary else kept.former
        former = -1 if former == identity.primary else former
        write_kept(self._name, replace(kept, primary=identity.primary, uuid=identity.uuid, former=former))

    def members(self) -> tuple[Member, ...]:
        found = ((number, self._container(number)) for number in range(self._kept.size))
        return tuple(
            Member(
                number=number,
                name=container.name,
                state=container.state,
                where=f"{self._engine.name} {container.name}",
                image=container.image,
                why="" if container.state is State.RUNNING else self._why(container, number),
            )
            for number, container in found
            if container is not None
        )

    def _why(self, container: Container, number: int) -> str:
        if number == self._kept.former:
            return f"it has the data of the former primary: deployer cluster renew {number}"
        if container.oom_killed:
            return "out of memory (OOM-killed)"
        return container.error or ("" if container.exit_code is None else f"exit code {container.exit_code}")

    def _container(self, number: int) -> Container | None:
        found = self._engine.inspect(member_name(self._name, number))
        return found if found is not None and found.ours else None

    def _member(self, number: int) -> Deployment:
        container = self._container(number)
        if container is None:
            raise ConflictError(f"{self._name} has no member {number}", hint="deployer cluster status")
        return Deployment(name=container.name, engine=self._engine, container=container)

    def exec(self, number: int, words: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        member = self._member(number)
        place = member.server_dir
        if features(self._engine.name).containers or place is None:
            argv = in_image(words)
        else:
            argv = (*OWN_PYTHON, "-m", "deployer.server", *words, "--serverdir", place.mount.source)
        return self._engine.exec(member.name, argv, stdin=stdin)

    def logs(self, number: int, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        return self._engine.logs(self._member(number).name, follow=follow, since=since, tail=tail)

    @contextmanager
    def reach(self) -> Iterator[str]:
        from deployer.devpi.api import DevpiApi

        primary = self._member(self._kept.primary)
        nonce, place = secrets.token_hex(16), primary.server_dir
        with DevpiApi(primary.url) as api:
            if place is not None:
                check_ours(primary.url, api.identity(nonce), nonce=nonce, uuid=place.uuid(), key=place.proof_key())
        yield primary.url

    def address(self) -> str:
        found = self._engine.inspect(self._name)
        return found.labels.get(LABEL_URL, "") if found is not None and found.ours else ""

    def https(self) -> Https | None:
        found = self._engine.inspect(self._name)
        url = found.labels.get(LABEL_TLS, "") if found is not None and found.ours else ""
        applied = read_applied(self._name)
        return Https(url=url, public=self._public or (applied.public_url if applied else "") or url) if url else None

    def password(self) -> Secret:
        found = self._container(self._kept.primary)
        place = ServerDir.of(self._engine, found) if found is not None else None
        kept = Passwords(name=self._name).stored(ROOT)
        known = kept or self._shared.password(place)
        if known is None:
            raise ConflictError("root's password is not known on this host", hint="deployer secret set root")
        return known

    # What is wanted

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        return tuple(self._differences(self._layout(wanted)))

    def _differences(self, layout: _Layout) -> Iterator[str]:
        plan = layout.whole.plan
        image = layout.whole.image
        if plan.image is not None and (image is None or not fits(plan.image, image)):
            yield f"image: {plan.image.ref} ({'build' if image is None else 'rebuild'})"
        if layout.single is not None:
            yield f"{plan.name}: the single server becomes member 0; its data stays in {plan.data.source}"
        for member in layout.due:
            role = "primary" if member.number == layout.primary else "replica"
            if member.prepared.current is None:
                yield f"member {member.number}: start a {role} on {member.prepared.plan.data.source}"
            elif not member.runs:
                yield f"member {member.number}: start the {role}, which is {member.prepared.current.state}"
            else:
                yield from (f"member {member.number}: {line}" for line in differences(member.prepared))
        for number in layout.surplus:
            yield f"member {number}: remove it, and keep its data"
        if not layout.balances:
            current = layout.whole.current
            new = current is None or layout.single is not None or current.state is not State.RUNNING
            yield f"balancer: {'start it' if new else 'give it other members or settings'} at {plan.url}"
        if line := layout.certificate.difference():
            yield line

    def _whole(self, loaded: Loaded) -> Prepared:
        return prepare_loaded(replace(loaded, profile=whole(loaded.profile)), self._name)

    def _layout(self, wanted: Wanted) -> _Layout:
        check(wanted.profile)
        assert self._loaded is not None  # noqa: S101 - a plan has a profile
        loaded = replace(self._loaded, profile=wanted.profile)
        primary, made = wanted.identity.primary, self._whole(loaded)
        if primary >= wanted.size:
            raise Refused(
                f"member {primary} is the primary, and the profile has members 0 to {wanted.size - 1} only",
                hint="promote one of them first: deployer cluster promote 0",
            )
        self._public = made.plan.tls.public if made.plan.tls is not None else ""
        members: list[HostMember] = []
        answering = answering_to(loaded, made.plan.spec)
        for number in range(wanted.size):
            taken = {made.plan.url, *(member.url for member in members)}
            members.append(planned(answering, self._name, number, taken=taken))
        url = members[primary].url
        return _Layout(
            whole=made,
            members=tuple(member.following(self._name, primary=primary, url=url) for member in members),
            primary=primary,
            balancer=balancer.balancer_spec(
                made.plan,
                [member.url for member in members],
                primary=primary,
                directory=self._directory,
                given=Certificate.directory_of(self._name),
                relabel=made.facts.selinux,
            ),
            certificate=Certificate(prepared=made),
            surplus=tuple(
                number
                for number in range(wanted.size, self._kept.size)
                if made.engine.inspect(member_name(self._name, number)) is not None
            ),
            former=self._kept.former,
        )

    @property
    def _directory(self) -> Path:
        """Where a balancer that is a process has its files."""
        return state_dir(self._name) / "balancer"

    # Effects

    def apply(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        layout = self._layout(wanted)
        engine = layout.whole.engine
        due = layout.due
        stale = layout.certificate.difference()
        if not due and layout.balances and not layout.surplus and layout.single is None and not stale:
            return False
        image = self._image(layout)
        with ExitStack() as rollback:
            self._begin(layout, wanted, rollback)
            current = settle(self._name, engine, layout.whole.current, layout.whole.previous)
            if current is not None and not balancer.is_balancer(current):
                on_line(f"{self._name}: its server becomes member 0")
                set_aside(layout.whole.plan, engine, current, rollback)
                current = None
            if layout.leads:
                self._one_by_one(layout, due, image, on_line)
            else:
                self._together(layout, due, image, on_line, rollback)
            self._serve(layout, current, rollback)
            rollback.pop_all()
        for member in due:
            commit(member)
        engine.remove(self._name + PREVIOUS)
        for number in layout.surplus:
            on_line(f"member {number}: removed, its data is kept")
            self._remove(number)
        return True

    def _image(self, layout: _Layout) -> Image | None:
        plan, images = layout.whole.plan, layout.whole.engine.images
        if plan.image is None or images is None:
            return None
        return have_image(plan.image, layout.whole.image, images, self._ui)

    def _begin(self, layout: _Layout, wanted: Wanted, rollback: ExitStack) -> None:
        """Before the first effect: from now on the next ``up`` and ``down`` know what this one has made."""
        engine, kept = layout.whole.engine, read_kept(self._name)
        if kept is None:
            undo(rollback, forget_kept, self._name)
            undo(rollback, self._shared.forget)
        kept = kept or Kept(place=HERE)
        write_kept(self._name, replace(kept, engine=str(engine.name), size=max(kept.size, wanted.size)))
        place = layout.leader.server_dir
        single = layout.single
        self._shared.make(ServerDir.of(engine, single) if single is not None else place if layout.leader.runs else None)

    def _together(
        self,
        layout: _Layout,
        due: Sequence[HostMember],
        image: Image | None,
        on_line: Callable[[str], None],
        rollback: ExitStack,
    ) -> None:
        """Start all that do not run as planned, the primary first: without it no replica can get in sync."""
        ordered = sorted(due, key=lambda member: member.number != layout.primary)
        started = [(member, launch(member, self._name, image, rollback)) for member in ordered]
        for member, done in started:
            on_line(f"member {member.number}: {done}")
            self._settle(layout, member, rollback)

    def _one_by_one(
        self, layout: _Layout, due: Sequence[HostMember], image: Image | None, on_line: Callable[[str], None]
    ) -> None:
        """Change the replicas, each once the former one is in sync, and the primary last. Each is kept once it is."""
        for member in sorted(due, key=lambda member: member.number == layout.primary):
            with ExitStack() as rollback:
                done = launch(member, self._name, image, rollback)
                self._settle(layout, member, rollback)
                rollback.pop_all()
            commit(member)
            on_line(f"member {member.number}: {done}")
            if member.number != layout.primary:
                await_synced(self, member.number, deadline=member.prepared.plan.ready_timeout)

    def _settle(self, layout: _Layout, member: HostMember, rollback: ExitStack) -> None:
        ready = answered(member)
        ready.api.close()
        record(member, ready.identity.uuid if member.number == layout.primary else "", rollback)

    def _serve(self, layout: _Layout, current: Container | None, rollback: ExitStack) -> None:
        """Have the balancer run as planned, with its certificate."""
        pair = layout.certificate.give(rollback)
        self._balance(layout, current, rollback)
        if pair is not None and layout.whole.plan.tls is not None:
            await_served(layout.whole.plan.tls, pair, self._ui)

    def renew_certificate(self) -> Renewed:
        """Give the balancer the certificate that its files hold now, or a new one of our own CA if it is due.

        Raises ConflictError without HTTPS, NotReadyError.
        """
        assert self._loaded is not None  # noqa: S101 - a certificate has a profile
        whole = self._whole(self._loaded)
        served, wanted = self.https(), Certificate(prepared=whole)
        changed = bool(wanted.difference())
        with ExitStack() as rollback:
            pair = wanted.give(rollback)
            if pair is None or served is None:
                raise ConflictError(
                    f"{self._name} has no HTTPS", hint="deployer up --set network.tls.cert=auto, with its other options"
                )
            wait_served(served.url, pair.shown.fingerprint)
            rollback.pop_all()
        return Renewed(changed=changed, ends=pair.shown.ends, fingerprint=pair.shown.fingerprint)

    def _balance(self, layout: _Layout, current: Container | None, rollback: ExitStack) -> None:
        plan, engine = layout.whole.plan, layout.whole.engine
        if balancer.runs_as(layout.balancer, current):
            return
        engine.remove(self._name + balancer.NEXT)  # of a killed run
        if current is not None and balancer.takes_over(layout.balancer, current):
            self._hand_on(layout, rollback)
            return
        if current is not None:
            set_aside(plan, engine, current, rollback)
        undo(rollback, engine.remove, self._name)
        engine.run(layout.balancer)
        wait(
            url=plan.url,
            engine=engine,
            name=self._name,
            expected_uuid=lambda: None,
            proof_key=lambda: None,
            credentials=None,
            index=None,
            deadline=plan.ready_timeout,
            on_stage=lambda stage, seconds: None,
        ).api.close()

    def _hand_on(self, layout: _Layout, rollback: ExitStack) -> None:
        """Let the new balancer listen beside the former one, before that ends: no client is refused."""
        engine, spec = layout.whole.engine, balancer.following(layout.balancer)
        undo(rollback, engine.remove, spec.name)
        engine.run(spec)
        await_balancer(
            layout.whole.plan.url,
            balancer.mark_of(spec),
            Watch(engine, spec.name, mask=mask, clock=time.monotonic),
            deadline=layout.whole.plan.ready_timeout,
        )
        engine.stop(self._name, timeout=STOP)
        engine.remove(self._name)
        engine.rename(spec.name, self._name)
        self._tidy(keeping=balancer.mark_of(spec))

    def _tidy(self, *, keeping: str) -> None:
        """Remove what former balancers have left that were processes."""
        for path in self._directory.glob("*"):
            if path.name != keeping:
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            state_dir(self._name + balancer.NEXT).rmdir()

    def restart(self, number: int) -> None:
        name = self._member(number).name
        self._engine.stop(name, timeout=STOP)
        self._engine.start(name)

    def stop(self, number: int, *, timeout: timedelta) -> None:
        self._engine.stop(self._member(number).name, timeout=timeout)

    def renew(self, number: int) -> None:
        if number == self._kept.primary:
            raise Refused(
                f"member {number} is the primary, and its data is the cluster's",
                hint="promote another one first: deployer cluster promote MEMBER",
            )
        assert self._loaded is not None  # noqa: S101 - a member is started by its profile
        loaded, identity = self._loaded, Identity(primary=self._kept.primary, uuid=self._kept.uuid)
        self._remove(number, purging=True)
        if self._kept.former == number:
            write_kept(self._name, replace(self._kept, former=-1))
        self.apply(
            Wanted(name=self._name, profile=loaded.profile, profile_name=loaded.name, image="", identity=identity),
            self._ui.note,
        )

    def _remove(self, number: int, *, purging: bool = False) -> str:
        """Remove a member, with its data if ``purging``; where data is left."""
        name = member_name(self._name, number)
        done = down_one(name, engine=str(self._engine.name), purging=purging, yes=True, ui=self._ui)
        if purging:
            shutil.rmtree(state_dir(name), ignore_errors=True)
        return done.kept

    def down(self, *, purging: bool, on_line: Callable[[str], None]) -> tuple[str, ...]:
        container = self._engine.inspect(self._name)
        if container is not None and container.ours:
            remove(Deployment(name=self._name, engine=self._engine, container=container), self._ui)
        self._engine.remove(self._name + balancer.NEXT)
        for path in (self._directory, Certificate.directory_of(self._name)):
            shutil.rmtree(path, ignore_errors=True)
        primary, left = self._kept.primary, []
        # The primary last: a replica that stops has told it what it has.
        for number in sorted(range(self._kept.size), key=lambda number: number == primary):
            if purging or self._container(number) is not None:
                left.append(self._remove(number, purging=purging))
                on_line(f"member {number}: removed")
        if purging:
            forget(self._name)
            Passwords(name=self._name).forget_all()
            self._shared.forget()
            forget_certificate(self._name)
            forget_kept(self._name)
        return tuple(filter(None, left))


def await_balancer(url: str, mark: str, watch: Watch, *, deadline: timedelta) -> None:
    """Wait until the balancer with this mark answers; another one may answer at the same address.

    Raises NotReadyError.
    """
    parts, until = urlsplit(url), time.monotonic() + deadline.total_seconds()
    while True:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5.0)
        with suppress(OSError, HTTPException), closing(connection):
            connection.request("GET", LIVE_ROUTE)
            if connection.getresponse().headers.get(BALANCER_HEADER) == mark:
                return
        watch.alive()
        if time.monotonic() > until:
            raise NotReadyError(
                f"the new balancer does not answer at {url}", hint="deployer up", details=watch.last_lines()
            )
        time.sleep(0.02)
