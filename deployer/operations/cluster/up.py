"""Bring a cluster to the state of its profile, at whatever place."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.clients import pip
from deployer.clients.client import Account
from deployer.clusters.base import Cluster, Identity, PlaceName, Wanted
from deployer.deployment.cluster import Kept, read_kept, write_kept
from deployer.deployment.lock import hold
from deployer.deployment.passwords import ROOT, Passwords
from deployer.deployment.record import Applied, Overridden, write_applied
from deployer.deployment.secret_refs import authorizations
from deployer.devpi.change import Change
from deployer.devpi.converge import converge, steps
from deployer.devpi.declared import wanted as declared
from deployer.errors import EngineError
from deployer.image import reference
from deployer.operations import client_files, logins
from deployer.operations.cluster.image import build_of, have_own_image
from deployer.operations.cluster.places import open_wanted
from deployer.operations.cluster.standing import Standing, await_all, standing
from deployer.operations.prepare import is_ours
from deployer.operations.recorded import dropped_warning
from deployer.operations.up import show_changes
from deployer.plan import ClientPlan, members_named
from deployer.profile.load import Loaded, load
from deployer.secrets import Secret

if TYPE_CHECKING:
    from deployer.clients.configure import ClientChange
    from deployer.profile.load.overrides import Override
    from deployer.profile.models import Profile
    from deployer.ui.output import UI

_ANYWHERE = "http://127.0.0.1:3141"
"""Stands for an address that is not known before the first member runs."""


@dataclass(frozen=True, kw_only=True)
class Raised:
    """The result of ``up``. ``url``: for clients; empty where the place knows none. ``applied``: whether the place was
    changed; ``timings``: seconds by stage."""

    profile: Profile
    place: PlaceName
    engine: str
    url: str
    applied: Sequence[str]
    members: Sequence[Standing]
    changes: Sequence[Change]
    client_changes: Sequence[ClientChange]
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def simple_url(self) -> str:
        return simple_url(self.url, self.profile)


@dataclass(frozen=True, kw_only=True)
class Pointed:
    """What client files are made of."""

    simple_url: str
    clients: ClientPlan

    @classmethod
    def of(cls, profile: Profile, url: str) -> Pointed:
        clients = profile.clients
        return cls(
            simple_url=simple_url(url, profile),
            clients=ClientPlan(
                index=clients.index, timeout=clients.timeout, configure=clients.configure, scope=clients.scope
            ),
        )


def simple_url(url: str, profile: Profile) -> str:
    """The index address for installers; empty without the server's."""
    return url and f"{url.rstrip('/')}/{profile.clients.index}/+simple/"


def wanted_of(loaded: Loaded, name: str, cluster: Cluster) -> Wanted:
    """What the profile asks for, with the roles as the place keeps them."""
    profile = loaded.profile
    found = pip.upstream(pip.read_config(Account.of(os.environ)), ours=is_ours)
    own = profile.cluster.image or reference(profile.server.version)
    return Wanted(
        name=name,
        profile=profile,
        profile_name=loaded.name,
        image="" if cluster.place is PlaceName.HOST else own,
        identity=cluster.identity() or Identity(),
        upstream=found.value if found else "",
        build=build_of(profile),
    )


def up(
    profile: str,
    name: str,
    *,
    overrides: Sequence[Override],
    ui: UI,
    prune: bool = False,
    clients: bool = True,
    lock_wait: float = 0.0,
) -> Raised:
    """Bring the cluster ``name`` to the state of ``profile``, and return when all members are in sync.

    What is there already is changed one member at a time. A run that fails or is killed is completed by the next one.
    """
    with hold(name, wait=lock_wait):
        loaded = load(profile, overrides=overrides)
        for text in dropped_warning(profile, name, loaded):
            ui.warn(text)
        cluster = open_wanted(loaded, name, ui)
        return raised(cluster, loaded, name, ui, prune=prune, clients=clients)


def raised(cluster: Cluster, loaded: Loaded, name: str, ui: UI, *, prune: bool = False, clients: bool = True) -> Raised:
    """As :func:`up`; the caller holds the lock."""
    started, own = time.monotonic(), loaded.profile
    engine = cluster.probe()
    ui.step("engine", engine)
    if clients:
        client_files.preview(Pointed.of(own, _ANYWHERE))  # refuse an unwritable file before the first effect
    headers = authorizations(own.indexes, env=os.environ, home=Path.home())
    wanted = wanted_of(loaded, name, cluster)
    due = cluster.differences(wanted)
    for line in due:
        ui.note(line)
    if due:
        have_own_image(cluster, own, ui)
    with ui.working("members", f"{wanted.size} of {name}") as progress:
        cluster.apply(wanted, progress)
        timings = {"members": time.monotonic() - started}
        members = await_all(lambda: standing(cluster), wanted.size, deadline=deadline_of(own), on_line=progress)
    timings["sync"] = time.monotonic() - started
    ui.step("members", ", ".join(f"{one.number} {one.role}" for one in members))
    identity = _remembered(cluster, wanted, members)
    give_credentials(cluster, identity.primary, headers)
    with cluster.reach() as url:
        changes = _seeded(cluster, url, own, name, wanted.upstream, prune=prune)
    timings["index"] = time.monotonic() - started
    show_changes(changes, members_named(own.indexes, own.groups), ui)
    address = cluster.address()
    ui.step("ready", f"{address or 'all members'} in {timings['index']:.1f} s")
    _record(cluster, loaded, name, address, identity)
    pointed = Pointed.of(own, address)
    client_changes = client_files.configure(pointed, ui) if clients and address else []
    if client_changes:
        logins.ensure(name, pointed.simple_url, ui)
    return Raised(
        profile=own,
        place=cluster.place,
        engine=engine.partition(" ")[0],
        url=address,
        applied=due,
        members=members,
        changes=changes,
        client_changes=client_changes,
        timings=timings,
    )


def deadline_of(profile: Profile) -> timedelta:
    """How long a member may make no progress."""
    return timedelta(seconds=profile.server.ready_timeout)


def _remembered(cluster: Cluster, wanted: Wanted, members: Sequence[Standing]) -> Identity:
    """Keep the uuid of the primary's data, once it is known."""
    known = wanted.identity
    leader = next(one for one in members if one.number == known.primary)
    assert leader.status is not None  # noqa: S101 - it is in sync
    found = Identity(primary=known.primary, uuid=leader.status.uuid)
    if found != cluster.identity():
        cluster.remember(found)
    return found


def give_credentials(cluster: Cluster, primary: int, headers: Mapping[str, Secret]) -> None:
    """Give the primary the credentials of mirrors, before the first request to one. Raises EngineError."""
    content = {url.rstrip("/"): header.reveal() for url, header in headers.items()}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    done = cluster.exec(primary, ("store", "credentials"), stdin=text.encode())
    if done.returncode:
        raise EngineError(
            f"member {primary} did not store the credentials of mirrors: {done.stderr.strip()[-300:]}",
            hint=f"deployer logs --member {primary}",
        )


def _seeded(
    cluster: Cluster, url: str, profile: Profile, name: str, upstream: str, *, prune: bool
) -> tuple[Change, ...]:
    """Apply users and indexes at the primary, then request the clients' index. Raises NotReadyError, ServerRefused."""
    from deployer.devpi.api import DevpiApi

    passwords = Passwords(name=name)
    with DevpiApi(url) as api:
        default = upstream or api.identity().default_mirror_url or ""
        goal = declared(profile.users, members_named(profile.indexes, profile.groups), default_mirror_url=default)
        api.read_as(ROOT, cluster.password())
        found = steps(api, goal, removing=prune)
        converge(api, found, password=cluster.password, new_password=passwords.generate, forget=passwords.forget)
        api.simple_status(profile.clients.index)
    return found


def _record(cluster: Cluster, loaded: Loaded, name: str, url: str, identity: Identity) -> None:
    here, kept = cluster.place is PlaceName.HOST, read_kept(name)
    if not here:
        write_kept(name, Kept(place=str(cluster.place)))
    write_applied(
        name,
        Applied(
            profile_name=loaded.name,
            profile_ref=loaded.ref,
            engine=kept.engine if here and kept else loaded.profile.engine,
            simple_url=simple_url(url, loaded.profile),
            profile=loaded.profile.model_dump(mode="json"),
            overrides=[Overridden(key=one.key, value=one.value, source=one.source) for one in loaded.overrides],
            data_uuid="",
            public_url=https.public if (https := cluster.https()) is not None else "",
        ),
    )
