"""Load the profile, gather facts of the host and make the plan, without any effect."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from deployer import __version__
from deployer.addresses import is_loopback, split
from deployer.deployment import certificate, settings
from deployer.deployment.cluster import read_kept, server_of
from deployer.deployment.passwords import Passwords
from deployer.deployment.record import read_applied
from deployer.deployment.server_dir import ServerDir
from deployer.engines import Detection, detect, open_engine
from deployer.engines.base import Engine
from deployer.errors import ConflictError
from deployer.host import routes
from deployer.host.background import meanwhile
from deployer.host.gather import (
    ca_file,
    ceiling,
    data_facts,
    has_nginx,
    lingering,
    port_facts,
    proxies,
    selinux_enforcing,
)
from deployer.host.plugins import plugin_facts
from deployer.operations import upstream_probe
from deployer.operations.recorded import recorded
from deployer.operations.upgrade.record import read_upgraded
from deployer.plan import Plan, plan
from deployer.plan.container import CA_TARGET
from deployer.plan.data import data_path
from deployer.plan.facts import Facts, Measured, PluginFacts, PortFacts
from deployer.plan.network import conclusive, upstreams
from deployer.plan.tls import plain_bind
from deployer.profile.load import Loaded, load
from deployer.profile.load.overrides import Override
from deployer.profile.models import Profile
from deployer.spec import (
    LABEL_PROFILE,
    LABEL_TLS,
    LABEL_URL,
    PREVIOUS,
    Container,
    EngineInfo,
    EngineName,
    Image,
    State,
)

_RUNS = (State.RUNNING, State.RESTARTING, State.PAUSED)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan and its inputs. ``previous``: a container that an interrupted run set aside; ``image``: the present image;
    ``image_ready``: it is known to be the planned one."""

    loaded: Loaded
    detection: Detection
    facts: Facts
    plan: Plan
    previous: Container | None = None
    image: Image | None = None
    image_ready: bool = False
    moving: bool = False

    @property
    def engine(self) -> Engine:
        return self.detection.engine

    @property
    def server_dir(self) -> ServerDir:
        """Where the planned container keeps its data."""
        return ServerDir(engine=self.engine, container=self.plan.name, mount=self.plan.spec.mounts[0])

    @property
    def passwords(self) -> Passwords:
        return Passwords(name=self.plan.name, server_dir=self.server_dir)

    @property
    def current(self) -> Container | None:
        return self.facts.current


def prepare(
    ref: str,
    name: str,
    *,
    overrides: Sequence[Override] = (),
    replace: bool = True,
    moving: bool = False,
    new_data: bool = False,
    adjust: Callable[[Facts], Facts] = lambda facts: facts,
) -> Prepared:
    """Load the profile ``ref``, gather the facts of this host and plan the deployment ``name``.

    ``replace``: allow to replace a deployment of another profile. ``moving``: its data moves to another location.
    ``new_data``: the user accepts that the recorded data is gone. ``adjust``: what will have changed by then.
    Raises ProfileError, EngineUnreachable, ConflictError, Refused.
    """
    loaded, name = _of_primary(load(ref, overrides=overrides), name)
    return prepare_loaded(loaded, name, replace=replace, moving=moving, new_data=new_data, adjust=adjust)


def _of_primary(loaded: Loaded, name: str) -> tuple[Loaded, str]:
    """The same, or for a cluster on this host its primary, as :func:`deployer.deployment.find.find` finds it."""
    if server_of(name) == name:
        return loaded, name
    from deployer.operations.cluster.host.derived import of_member

    kept = read_kept(name)
    assert kept is not None  # noqa: S101 - it has a primary
    profile = of_member(loaded.profile, name, kept.primary, home=Path.home(), uid=os.getuid())
    return dataclasses.replace(loaded, profile=profile), server_of(name)


def prepare_loaded(
    loaded: Loaded,
    name: str,
    *,
    replace: bool = True,
    moving: bool = False,
    new_data: bool = False,
    adjust: Callable[[Facts], Facts] = lambda facts: facts,
) -> Prepared:
    """As :func:`prepare`, of a profile that is loaded."""
    plugins = plugin_facts(loaded.profile, loaded.files, name=name)
    detection, found, image = _locate(loaded.profile, name, plugins)
    current = settings.current(detection.engine, found)
    previous = detection.engine.inspect(name + PREVIOUS) if current is None else None
    _check_profile(current, loaded.name, replace=replace)
    facts = gather(loaded.profile, detection.info, current or previous, name=name, plugins=plugins)
    if facts.data is None and detection.info.features.volumes:
        facts = dataclasses.replace(facts, volume_absent=_absent(loaded.profile, facts.current, detection.engine))
    if new_data:
        facts = dataclasses.replace(facts, recorded=None)
    facts = adjust(facts)
    return Prepared(
        loaded=loaded,
        detection=detection,
        facts=facts,
        plan=plan(loaded.profile, facts, name=name, profile_name=loaded.name, moving=moving),
        moving=moving,
        previous=previous,
        image=image,
    )


def _absent(profile: Profile, current: Container | None, engine: Engine) -> bool:
    """Whether the planned volume does not exist; one that the container uses does."""
    volume = profile.data.removeprefix("volume:")
    used = current is not None and any(mount.source == volume for mount in current.mounts)
    return not used and engine.volume(volume) is None


def _locate(
    profile: Profile, name: str, plugins: PluginFacts | None
) -> tuple[Detection, Container | None, Image | None]:
    """Return the engine, the container and the image of a deployment.

    ``auto`` prefers the deployment's own engine, even if another engine has become available.

    Raises EngineUnreachable.
    """
    wanted = profile.engine
    if wanted != "auto":
        engine = open_engine(EngineName(wanted))
        asked, image = meanwhile(lambda: engine.inspect(name)), _image(engine, profile, plugins)
        return Detection(engine=engine, info=engine.probe()), asked.result(), image.result()
    last = read_applied(name)
    if last is not None and last.engine in set(EngineName):
        engine = open_engine(EngineName(last.engine))
        info, image = meanwhile(engine.probe), _image(engine, profile, plugins)
        current = engine.inspect(name)
        if current is not None and current.ours:
            return Detection(engine=engine, info=info.result()), current, image.result()
    detection = detect(wanted)
    image = _image(detection.engine, profile, plugins)
    return detection, detection.engine.inspect(name), image.result()


def _image(engine: Engine, profile: Profile, plugins: PluginFacts | None) -> Future[Image | None]:
    """Inspect the image of the profile in the background; a process has none.

    What writes the command of a container is loaded meanwhile, too.
    """
    from deployer.image import reference

    ref = profile.image.ref or reference(profile.server.version, _lock(profile, plugins))
    images = engine.images
    if images is not None:
        meanwhile(lambda: import_module("deployer.render").run_template(engine.name))
    return meanwhile(lambda: images.find(ref) if images is not None else None)


def _lock(profile: Profile, plugins: PluginFacts | None) -> str:
    return plugins.lock if plugins is not None and profile.server.plugins else ""


def measured(prepared: Prepared) -> Prepared:
    """Measure the network if its mode is undecided, and plan again.

    The image must be present. Raises EngineUnreachable, ImageUnavailable, Locked.
    """
    if not prepared.plan.network.open:
        return prepared
    facts = prepared.facts
    urls = upstreams(prepared.loaded.profile, facts)
    found = upstream_probe.measure(
        prepared.plan.spec, prepared.engine, urls, ca_file=facts.ca_file, ca_target=CA_TARGET
    )
    return decided(prepared, found)


def decided(prepared: Prepared, found: Measured) -> Prepared:
    """Plan again with the measurement, and remember it until the network changes."""
    facts, profile, name = prepared.facts, prepared.loaded.profile, prepared.plan.name
    if profile.network.mode == "auto" and conclusive(found):
        upstream_probe.remember(name, _fingerprint(profile, facts), found)
    facts = dataclasses.replace(facts, measured=found)
    made = plan(profile, facts, name=name, profile_name=prepared.loaded.name, moving=prepared.moving)
    return dataclasses.replace(prepared, facts=facts, plan=made)


def _fingerprint(profile: Profile, facts: Facts) -> str:
    """Return a fingerprint of all that affects a measurement: upstreams, proxies, CA bundle, engine, routes."""
    proxies = sorted(facts.proxies.items()) if profile.network.proxy else ()
    urls = upstreams(profile, facts)
    return routes.fingerprint([urls, proxies, facts.ca_file, facts.engine.name, facts.engine.rootless])


def _check_profile(current: Container | None, wanted: str, *, replace: bool) -> None:
    running = current.labels.get(LABEL_PROFILE, wanted) if current is not None and current.ours else wanted
    if running != wanted and not replace:
        raise ConflictError(
            f"the deployment runs under the profile {running!r}, not {wanted!r}",
            hint=f"add --profile {running} to keep its profile, or --replace to change it",
        )


def _port_of(container: Container | None, label: str = LABEL_URL) -> int | None:
    url = container.labels.get(label, "") if container is not None and container.ours else ""
    digits = url.rpartition(":")[2]
    return int(digits) if digits.isdigit() else None


def _tls_port(profile: Profile, current: Container | None, *, any_port: bool) -> PortFacts | None:
    """The port of HTTPS; None without. ``any_port``: a taken one is ignored."""
    network, known = profile.network, _port_of(current, LABEL_TLS)
    if not network.tls.cert:
        return None
    wanted = network.tls.port or known or 0
    held = any_port or (known == wanted and current is not None and current.state in _RUNS)
    return port_facts(network.bind, wanted, held_by_us=held)


def is_ours(url: str) -> bool:
    """Whether a URL is a devpi on this host, which must not become its own upstream."""
    parts = split(url)
    return parts is not None and "/+simple" in parts.path and is_loopback(url)


def gather(
    profile: Profile,
    info: EngineInfo,
    current: Container | None,
    *,
    name: str,
    plugins: PluginFacts | None = None,
    any_port: bool = False,
) -> Facts:
    """Gather all facts of this host that the plan needs.

    ``any_port``: ignore a taken port, since nothing starts now.
    """
    from deployer.clients import pip
    from deployer.clients.client import Account
    from deployer.image import build_digest, reference

    home = Path.home()
    path = data_path(profile.data, name=name, home=home, uid=os.getuid())
    known = _port_of(current)
    wanted = profile.network.port or known or 0
    running = current is not None and current.state in _RUNS
    config = pip.read_config(Account.of(os.environ))
    upstream = pip.upstream(config, ours=is_ours)
    facts = Facts(
        engine=info,
        uid=os.getuid(),
        gid=os.getgid(),
        home=home,
        port=port_facts(plain_bind(profile.network), wanted, held_by_us=any_port or (running and wanted == known)),
        tls_port=_tls_port(profile, current, any_port=any_port),
        certificate=certificate.facts(profile.network, name, home=home),
        nginx=None if info.features.containers else has_nginx(),
        data=data_facts(path) if path is not None else None,
        recorded=recorded(read_applied(name), read_upgraded(name)),
        current=current,
        selinux=selinux_enforcing(),
        ceiling=ceiling(),
        lingering=lingering(),
        ca_file=ca_file(profile.network.ca_file, pip_cert=config.value("cert"), env=os.environ),
        proxies=proxies(os.environ),
        upstream=upstream.value if upstream else "",
        upstream_source=upstream.source if upstream else "",
        image_ref=reference(profile.server.version, _lock(profile, plugins)),
        image_build=build_digest(profile.image.base, profile.server.version, _lock(profile, plugins)),
        plugins=plugins,
        version=__version__,
        resolv_conf=routes.resolv_conf(),
    )
    if profile.network.mode != "auto":
        return facts
    return dataclasses.replace(facts, measured=upstream_probe.recall(name, _fingerprint(profile, facts)))
