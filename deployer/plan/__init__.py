"""Decide what a profile means on this host, before any effect. Pure: no clock, socket or process.

:func:`plan` makes all decisions and refusals, so a refused profile has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.plan.conflicts import base_url, check_here, check_owner, check_port
from deployer.plan.container import container_spec
from deployer.plan.data import DataPlan, check_kept, check_place, check_volume_kept, plan_data
from deployer.plan.facts import Facts
from deployer.plan.network import Network, choose
from deployer.plan.plugins import PluginPlan, check_plugins, plan_plugins
from deployer.plan.safety import check_safe, warnings
from deployer.plan.tls import TlsPlan, plain_bind, tls_plan
from deployer.plan.versions import check_layout, check_server
from deployer.spec import ContainerSpec, EngineInfo

if TYPE_CHECKING:
    from deployer.profile.models import Index, Profile, User
    from deployer.profile.types import ClientName


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """The image to run. ``own``: ours, to build; otherwise to pull."""

    ref: str
    own: bool
    base: str = ""  # empty: the default base image
    major: str = ""  # major version of devpi-server in our own image
    build: str = ""
    plugins: str = ""
    """The lock of the plugins in our own image."""
    digest: str = ""
    proxy: bool = False
    """The build gets the proxy variables of this host."""


@dataclass(frozen=True, kw_only=True)
class ClientPlan:
    """The client files to write."""

    index: str
    timeout: int
    configure: tuple[ClientName, ...]
    scope: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``up`` does.

    ``simple_url``: the index URL for clients. ``default_upstream``: the upstream of new mirrors that name none; empty:
    the server's default.
    """

    name: str
    profile_name: str
    engine: EngineInfo
    spec: ContainerSpec
    image: ImagePlan | None
    data: DataPlan
    network: Network
    url: str
    simple_url: str
    users: Mapping[str, User]
    indexes: Mapping[str, Index]
    default_upstream: str
    upstream_source: str
    clients: ClientPlan
    ready_timeout: timedelta
    loopback: bool
    plugins: PluginPlan | None = None
    warnings: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    tls: TlsPlan | None = None


def plan(profile: Profile, facts: Facts, *, name: str, profile_name: str, moving: bool = False) -> Plan:
    """Plan the deployment ``name``. ``moving``: the data moves to another place.

    Raises Refused (unsafe), ConflictError (port, name or data directory not usable), EngineError (another major
    version of devpi-server is installed, or the engine is on another host).
    """
    check_here(facts.engine)
    check_plugins(profile, facts)
    check_safe(profile, facts)
    network = choose(profile, facts, profile_name=profile_name)
    check_server(profile, facts)
    check_kept(facts.recorded, facts.data)
    data = plan_data(profile, facts, moving=moving)
    check_volume_kept(facts.recorded, data.source, absent=facts.volume_absent)
    check_owner(facts, name=name)
    check_layout(profile, facts)
    if not moving:
        check_place(facts.current, data, choice=profile.data)
    check_port(facts, network.mode)
    tls = tls_plan(profile, facts)
    url = base_url(plain_bind(profile.network), facts.port.number)
    index = profile.clients.index
    spec = container_spec(
        profile,
        facts,
        data,
        network.mode,
        name=name,
        profile_name=profile_name,
        url=url,
        tls_url=tls.url if tls is not None else "",
    )
    return Plan(
        name=name,
        profile_name=profile_name,
        engine=facts.engine,
        spec=spec,
        image=_image(profile, facts),
        data=data,
        network=network,
        url=url,
        simple_url=f"{url}/{index}/+simple/",
        tls=tls,
        users=profile.users,
        indexes=members_named(profile.indexes, profile.groups),
        default_upstream=facts.upstream,
        upstream_source=facts.upstream_source,
        clients=ClientPlan(
            index=index,
            timeout=profile.clients.timeout,
            configure=profile.clients.configure,
            scope=profile.clients.scope,
        ),
        ready_timeout=timedelta(seconds=profile.server.ready_timeout),
        loopback=profile.network.bind.is_loopback,
        plugins=plan_plugins(profile, facts),
        warnings=tuple(warnings(profile, facts, network, url=url)),
        warm=profile.warm,
    )


def _image(profile: Profile, facts: Facts) -> ImagePlan | None:
    if not facts.engine.features.images:
        return None
    if profile.image.ref:
        return ImagePlan(ref=profile.image.ref, own=False, digest=profile.image.digest)
    return replace(own_image(profile, facts), digest=profile.image.digest)


def own_image(profile: Profile, facts: Facts) -> ImagePlan:
    """Our own image, as built for this profile."""
    return ImagePlan(
        ref=facts.image_ref,
        own=True,
        base=profile.image.base,
        major=profile.server.version,
        build=facts.image_build,
        plugins=facts.plugins.lock if facts.plugins is not None and profile.server.plugins else "",
        proxy=profile.network.proxy,
    )


def members_named(indexes: Mapping[str, Index], groups: Mapping[str, tuple[str, ...]]) -> dict[str, Index]:
    """Replace each ``@group`` in the rights of ``indexes`` by its members. devpi knows only users."""

    def members(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        listed = (groups.get(name[1:], ()) if name.startswith("@") else (name,) for name in names)
        return tuple(dict.fromkeys(member for part in listed for member in part))

    acls = ("read", "acl_upload", "acl_toxresult_upload")
    return {
        name: index.model_copy(update={acl: members(getattr(index, acl)) for acl in acls})
        for name, index in indexes.items()
    }
