"""All that a profile means on this host, decided before anything happens. Pure: no clock, socket or process.

:func:`plan` is the only place where decisions are made; what it refuses, it refuses with everything in hand and
nothing touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from urllib.parse import urlsplit

from deployer.errors import ConflictError, DeployerError, EngineError, Refused
from deployer.facts import Content, DataFacts, Facts
from deployer.network import Network, choose, proxied
from deployer.order import merged, warning
from deployer.profile import DATA_CHOICES, Index, Profile, User
from deployer.secrets import mask_url
from deployer.spec import (
    LABEL_NAME,
    LABEL_PROFILE,
    LABEL_URL,
    LABEL_VERSION,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    Limits,
    Mount,
    NetworkMode,
    Port,
)

CONTAINER_UID = 3141
"""Who owns the data directory when root deploys: nobody that a distribution has, and never root."""
OWN_MEMORY = "256m"
"""What our own image lives within, with room: it needs about 80 MiB, and 64 more for each password that it checks."""
LAYOUTS = {"4": "6", "5": "7"}
"""The major version of devpi-server that has a layout of the server directory, which no other one takes."""
EXTRAS = {"6": "server", "7": "server7"}
"""What to install for a process of each major version."""
METRICS_PORT = 9141
"""Where the server in our image listens for Prometheus, if at all."""
CA_TARGET = "/etc/deployer/ca.pem"
TMPFS = "/tmp:rw,noexec,nosuid,nodev,size=64m"  # noqa: S108 - inside the container
# Where a data directory would take or break what is not ours (the directories themselves, not what is below).
_SACRED = frozenset(
    Path(p)
    for p in [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108 - a path to refuse
        "/usr",
        "/usr/lib",
        "/usr/local",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/tmp",  # noqa: S108 - a path to refuse
    ]
)
_KERNEL = (Path("/proc"), Path("/sys"), Path("/dev"), Path("/run/systemd"))
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """The data directory: ``kind`` is bind or volume; ``create`` and ``tighten`` say what is to be done to it."""

    kind: str
    source: str
    uid: int = 0
    gid: int = 0
    create: bool = False
    tighten: bool = False


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    ref: str
    own: bool
    base: str = ""  # empty = the default base
    major: str = "6"  # of the devpi-server in it
    build: str = ""
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class ClientPlan:
    index: str
    timeout: int
    configure: tuple[str, ...]
    scope: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``up`` would do. ``simple_url`` is what clients are given; ``default_upstream`` (empty = the server's
    own) is for mirrors that name none and don't exist yet."""

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
    warnings: tuple[str, ...] = ()


def data_path(choice: str, *, name: str, home: Path, uid: int) -> Path | None:
    """The directory that ``data:`` means for the deployment ``name``; ``None`` for a volume.

    The short names are shared seats: a deployment other than the default gets one of its own beside it.
    """
    if choice.startswith("volume:"):
        return None
    seat = DATA_CHOICES.get(choice)
    text = seat.format(uid=uid) if seat else choice
    path = home / text[2:] if text.startswith("~/") else Path(text)
    return path.with_name(f"{path.name}-{name}") if seat and name != "devpi" else path


def size(text: str) -> int:
    """Bytes of a size as engines write it: ``64m``."""
    return int(text.rstrip("bkmg") or 0) * _UNITS[text.lstrip("0123456789")] if text else 0


def plan(profile: Profile, facts: Facts, *, name: str, profile_name: str, moving: bool = False) -> Plan:
    """Decide everything. ``moving``: the data of what runs now is taken along to another place.

    Raises Refused (unsafe), ConflictError (port, name or data directory not usable).
    """
    _check_safe(profile, facts)
    network = choose(profile, facts, profile_name=profile_name)
    _check_server(profile, facts)
    data = _data(profile, facts)
    _check_owner(facts, name=name)
    _check_layout(profile, facts)
    if not moving:
        _check_place(facts.current, data, choice=profile.data)
    _check_port(facts, network.mode)
    url = base_url(profile.network.bind, facts.port.number)
    index = profile.clients.index
    spec = _spec(profile, facts, data, network.mode, name=name, profile_name=profile_name, url=url)
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
        warnings=tuple(_warnings(profile, facts, network, url=url)),
    )


def base_url(bind: IPv4Address | IPv6Address, port: int) -> str:
    """Where the server answers on this host: an unspecified address is reached through loopback."""
    address = str(bind)
    if bind.is_unspecified:
        address = "::1" if bind.version == 6 else "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def members_named(indexes: Mapping[str, Index], groups: Mapping[str, tuple[str, ...]]) -> dict[str, Index]:
    """``indexes`` with each ``@group`` in a list of upload rights replaced by its members: devpi knows only users."""

    def members(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        listed = (groups.get(name[1:], ()) if name.startswith("@") else (name,) for name in names)
        return tuple(dict.fromkeys(member for part in listed for member in part))

    acls = ("acl_upload", "acl_toxresult_upload")
    return {
        name: index.model_copy(update={acl: members(getattr(index, acl)) for acl in acls})
        for name, index in indexes.items()
    }


def _refusals(profile: Profile, facts: Facts) -> Iterator[tuple[str, str]]:
    """Every reason not to go on, as (cause, cure)."""
    for name, index in profile.indexes.items():
        if not index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield (
                f"{name} would merge the mirrors {' and '.join(mirrors)}: whoever publishes a higher version of a "
                "private name on one of them wins, in any order of bases",
                f"make the order real (indexes.{name}.type: ordered), or give it one mirror and upload the private "
                "packages; accept_confusion: true on it insists",
            )
        if index.type == "ordered" and profile.image.ref:
            yield (
                f"{name} is of type ordered, which the server of {profile.image.ref} does not know: it would merge",
                "leave image.ref out: deployer's own image knows it",
            )
        if index.credentials is not None and profile.image.ref:
            yield (
                f"{name} has credentials, which the server of {profile.image.ref} would show to all who ask",
                "leave image.ref out: deployer's own image keeps them apart",
            )
        if index.credentials is not None and not index.url:
            yield (
                f"{name} has credentials and no url: they would go to whatever this host's pip installs from",
                f"name the upstream that they are for: indexes.{name}.url",
            )
        if index.url and "@" in urlsplit(index.url).netloc:
            yield (
                f"{name}: the url {mask_url(index.url)} holds credentials, which devpi shows to every reader",
                f"leave user and password out of it, and name them by indexes.{name}.credentials: "
                '{username: USER, password: "env:VARIABLE"}',
            )
    follows_pip = any(index.type == "mirror" and not index.url for index in profile.indexes.values())
    if follows_pip and "@" in urlsplit(facts.upstream).netloc:
        yield (
            f"the host's pip installs from {mask_url(facts.upstream)} ({facts.upstream_source}), an address with "
            "credentials, which devpi would show to every reader",
            "name an upstream without credentials: --upstream URL",
        )
    if profile.server.metrics and not profile.server.metrics.startswith("127.") and not profile.network.expose:
        yield (
            f"{profile.server.metrics} can be reached by others, who can read which indexes and upstreams there are",
            "serve metrics at 127.0.0.1, or insist with --expose (key network.expose)",
        )
    if not profile.network.bind.is_loopback and not profile.network.expose:
        yield (
            f"{profile.network.bind} can be reached by others, who can read every index without a password",
            "bind to 127.0.0.1, or insist with --expose (key network.expose)",
        )


def _check_safe(profile: Profile, facts: Facts) -> None:
    refusals = list(_refusals(profile, facts))
    if refusals:
        (cause, cure), *others = refusals
        raise Refused(cause, hint=cure, details=tuple(f"also: {more} ({hint})" for more, hint in others))


def _check_server(profile: Profile, facts: Facts) -> None:
    """A process is the devpi-server that is installed, and an environment has one."""
    wanted, found = profile.server.version, facts.engine.version
    if facts.engine.name is not EngineName.PROCESS or found.partition(".")[0] == wanted:
        return
    raise EngineError(
        f"the profile wants devpi-server {wanted}, and {found} is installed beside deployer",
        hint=f"use an environment with 'deployer[{EXTRAS[wanted]}]', or a container engine, or set server.version",
    )


def _check_layout(profile: Profile, facts: Facts) -> None:
    """Our server would refuse data of another major version: so it is, before what runs on it is stopped."""
    wanted, maker = profile.server.version, _maker(facts)
    if profile.image.ref or not maker or maker == wanted:
        return
    where = facts.data.path if facts.data is not None else profile.data
    raise Refused(
        f"{where} holds data of devpi-server {maker}, and the profile wants devpi-server {wanted}, which does not "
        "convert it; nothing was touched",
        hint=f'stay with server.version: "{maker}", or export it with devpi-server {maker} and import it into a new '
        "directory",
    )


def _maker(facts: Facts) -> str:
    """The major version of devpi-server that the data is of; empty when that is not known."""
    if facts.data is not None:
        return LAYOUTS.get(facts.data.layout, "")
    current = facts.current  # what a volume holds only a server on it can tell, and ours has its version in its name
    ours = current is not None and current.ours and facts.image_ref.partition(":")[0] == current.image.partition(":")[0]
    return current.image.partition(":")[2].partition(".")[0] if ours and current is not None else ""


def _check_owner(facts: Facts, *, name: str) -> None:
    if facts.current is not None and not facts.current.ours:
        raise ConflictError(
            f"a container named {name!r} exists and is not deployer's",
            hint="choose another name with --name, or remove that container yourself",
        )


def _check_place(current: Container | None, data: DataPlan, *, choice: str) -> None:
    """Another place for the data of what runs would be an index without packages."""
    held = next((mount.source for mount in current.mounts if not mount.read_only), "") if current else ""
    if held and held != data.source:
        raise Refused(
            f"the deployment keeps its data in {held}, not in {data.source}",
            hint=f"--data {held}; or take it along: deployer move --data {choice}; or begin anew: deployer down",
        )


def _check_port(facts: Facts, mode: NetworkMode) -> None:
    if facts.port.absent:
        other = "127.0.0.1" if ":" in facts.port.absent else "::1"
        raise ConflictError(
            f"{facts.port.absent} is no address of this host",
            hint=f"--bind {other}, or another address that 'ip addr' shows",
        )
    engine, port = facts.engine, facts.port.number
    inside = engine.name is not EngineName.PROCESS
    root_listens = mode is NetworkMode.BRIDGE and not engine.rootless if inside else facts.uid == 0
    if facts.port.privileged and not root_listens:
        who = f"a rootless {engine.name}" if engine.rootless else "a server that does not run as root"
        raise ConflictError(
            f"port {port} is for root only, and {who} can't listen there",
            hint=f"choose a higher one with --port N, or: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}",
        )
    if not facts.port.free:
        holder = f" by {facts.port.holder}" if facts.port.holder else ""
        raise ConflictError(
            f"port {facts.port.number} is taken{holder}",
            hint="free it, or choose another with --port N (0 = a free one)",
        )


def _data(profile: Profile, facts: Facts) -> DataPlan:
    if facts.data is None:
        if facts.engine.name is EngineName.PROCESS:
            raise ConflictError(
                f"data: {profile.data} needs a container engine, and the server would run as a process",
                hint="choose a directory with --data home or --data PATH",
            )
        return DataPlan(kind="volume", source=profile.data.removeprefix("volume:"))
    data = facts.data
    if problem := _data_problem(data, facts, minimum=size(profile.server.min_free)):
        raise problem
    uid, gid = _data_owner(profile, facts)
    absent = data.content is Content.ABSENT
    if not absent and not _usable_by(data, facts, uid):
        wrong = f"{data.path} belongs to uid {data.uid}, and the server runs as uid {uid}"
        raise ConflictError(wrong, hint=f"sudo chown -R {uid}:{gid} {data.path}")
    return DataPlan(
        kind="bind",
        source=str(data.path),
        uid=uid,
        gid=gid,
        create=absent,
        tighten=not absent and (bool(data.mode & 0o077) or data.uid != uid),
    )


def _usable_by(data: DataFacts, facts: Facts, uid: int) -> bool:
    # Root may give an empty directory of its own to the server; files are never given away silently.
    return data.uid == uid or (facts.uid == 0 and data.uid == 0 and data.content is Content.EMPTY)


def _data_owner(profile: Profile, facts: Facts) -> tuple[int, int]:
    """Who must own the data directory on the host, so that the server can write and root inside is not needed."""
    if facts.engine.name is EngineName.PROCESS or facts.uid != 0 or facts.engine.rootless:
        return facts.uid, facts.gid
    if profile.image.user:
        uid, _, gid = profile.image.user.partition(":")
        return int(uid), int(gid)
    data = facts.data
    if data is not None and data.content is Content.DEVPI and data.uid != 0:
        return data.uid, data.gid
    return CONTAINER_UID, CONTAINER_UID


def _data_problem(data: DataFacts, facts: Facts, *, minimum: int) -> DeployerError | None:
    """Why a directory can't hold the data, in the order in which a person would want to know."""
    path = data.path
    other = "choose another directory with --data PATH"
    if path in _SACRED or path == facts.home or any(path.is_relative_to(top) for top in _KERNEL):
        return Refused(f"{path} is not a place for a data directory", hint=other)
    if data.symlink_to is not None:
        return Refused(f"{path} is a symbolic link to {data.symlink_to}", hint=f"--data {data.symlink_to}")
    match data.content:
        case Content.NOT_A_DIRECTORY:
            return ConflictError(f"{path} is not a directory", hint=other)
        case Content.UNREADABLE:
            return ConflictError(f"{path} belongs to uid {data.uid} and can't be read", hint=other)
        case Content.FOREIGN:
            return Refused(f"{path} holds files that are not devpi's; nothing was touched", hint=other)
        case Content.ABSENT if not data.parent_writable:
            return ConflictError(
                f"{path} can't be created: {data.parent} is not writable for uid {facts.uid}",
                hint=f"--data home, or once: sudo install -d -m 0700 -o {facts.uid} -g {facts.gid} {path}",
            )
        case _:
            pass
    if data.read_only:
        return Refused(f"the file system of {path} is mounted read-only", hint=other)
    if data.free_bytes < minimum:
        have, want = data.free_bytes >> 20, minimum >> 20
        return Refused(
            f"{have} MiB are free at {path}, at least {want} MiB are wanted",
            hint="free some space, or lower server.min_free",
        )
    if data.free_inodes < 1000:
        return Refused(f"only {data.free_inodes} inodes are free at {path}", hint="remove files, or " + other)
    return None


def _image(profile: Profile, facts: Facts) -> ImagePlan | None:
    if facts.engine.name is EngineName.PROCESS:
        return None
    if profile.image.ref:
        return ImagePlan(ref=profile.image.ref, own=False, digest=profile.image.digest)
    return ImagePlan(
        ref=facts.image_ref,
        own=True,
        base=profile.image.base,
        major=profile.server.version,
        build=facts.image_build,
        digest=profile.image.digest,
    )


def serve_command(profile: Profile, *, directory: str, host: str, port: int, metrics: str) -> tuple[str, ...]:
    """What our own server is told, in the image and as a process alike. ``metrics``: its address for Prometheus."""
    server = profile.server
    command = ["serve", "--serverdir", directory, "--host", host, "--port", str(port)]
    command += ["--request-timeout", str(server.request_timeout)]
    command += ["--mirror-cache-expiry", str(server.mirror_cache_expiry), "--threads", str(server.threads)]
    if server.web:
        command.append("--web")
    if server.offline:
        command.append("--offline")
    if server.log_max_size and server.log_max_size != "10m":
        command += ["--log-max-size", server.log_max_size]
    if server.log_max_files != 3:
        command += ["--log-max-files", str(server.log_max_files)]
    if metrics:
        command += ["--metrics", metrics]
    if server.front != "auto":
        command += ["--front", server.front]
    for origin in server.push_to:
        command += ["--push-to", origin]
    if profile.network.outside_url:
        command += ["--outside-url", profile.network.outside_url]
    return tuple(command)


def _environment(profile: Profile, facts: Facts) -> tuple[dict[str, str], tuple[Mount, ...]]:
    """Variables and mounts through which the server reaches its upstreams as this host does."""
    env: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    if facts.ca_file is not None:
        inside = facts.engine.name is not EngineName.PROCESS
        target = CA_TARGET if inside else str(facts.ca_file)
        env |= {"REQUESTS_CA_BUNDLE": target, "SSL_CERT_FILE": target}
        if inside:
            mounts = (Mount(kind="bind", source=str(facts.ca_file), target=target, read_only=True, relabel=False),)
    if profile.network.proxy:
        env |= facts.proxies
    return env, mounts


def _resolver(facts: Facts) -> tuple[Mount, ...]:
    """The host's own list of name servers, not the copy that an engine makes of it at the start: with another node of
    a VPN come other servers. (SELinux lets no container read it, and gives no second label to a file of the host.)"""
    if facts.engine.name is EngineName.PROCESS or facts.resolv_conf is None or facts.selinux:
        return ()
    path = str(facts.resolv_conf)
    return (Mount(kind="bind", source=path, target=path, read_only=True),)


def _spec(
    profile: Profile,
    facts: Facts,
    data: DataPlan,
    mode: NetworkMode,
    *,
    name: str,
    profile_name: str,
    url: str,
) -> ContainerSpec:
    bind, port = str(profile.network.bind), facts.port.number
    env, mounts = _environment(profile, facts)
    if mode is NetworkMode.HOST:
        mounts += _resolver(facts)
    labels = {LABEL_NAME: name, LABEL_PROFILE: profile_name, LABEL_URL: url, LABEL_VERSION: facts.version}
    server = profile.server
    common = {
        "name": name,
        "labels": tuple(sorted(labels.items())),
        "network": mode,
        "restart": restart_policy(server.restart, facts.engine),
        "stop_timeout": timedelta(seconds=server.stop_timeout),
        "log_max_size": server.log_max_size,
        "log_max_files": server.log_max_files,
    }
    if facts.engine.name is EngineName.PROCESS:
        return ContainerSpec(
            image=f"devpi-server-{facts.engine.version}",
            build=facts.image_build,
            command=serve_command(profile, directory=data.source, host=bind, port=port, metrics=server.metrics),
            env=tuple(sorted(env.items())),
            mounts=(Mount(kind="bind", source=data.source, target=data.source),),
            ports=(Port(host_ip=bind, host_port=port, container_port=port),),
            **common,  # type: ignore[arg-type]
        )
    image = profile.image
    own = not image.ref
    inner = 3141 if own else image.port
    published = mode is NetworkMode.BRIDGE
    target = "/data" if own else image.data_path
    command = image.command
    if own:
        host = "0.0.0.0" if published else bind  # noqa: S104 - inside the container; the publish address is the fence
        command = serve_command(
            profile,
            directory=target,
            host=host,
            port=inner if published else port,
            metrics=f"0.0.0.0:{METRICS_PORT}" if published and server.metrics else server.metrics,
        )
    return ContainerSpec(
        image=image.ref or facts.image_ref,
        build=facts.image_build if own else "",
        command=command,
        env=tuple(sorted((env | dict(image.env)).items())),
        mounts=(
            Mount(
                kind=data.kind,
                source=data.source,
                target=target,
                relabel=facts.selinux and data.kind == "bind",
            ),
            *mounts,
        ),
        tmpfs=(TMPFS,),
        ports=(Port(host_ip=bind, host_port=port, container_port=inner), *_metrics_port(server.metrics, own=own))
        if published
        else (),
        user=_user(profile, facts, data),
        userns=_userns(profile, facts, data),
        stop_signal=image.stop_signal,
        limits=_limits(profile, facts),
        read_only=image.read_only,
        **common,  # type: ignore[arg-type]
    )


def _wanted_limits(profile: Profile) -> Limits:
    server = profile.server
    return Limits(
        memory=_memory(server.memory, own=not profile.image.ref),
        pids=server.pids,
        nofile=server.nofile,
        cpus=server.cpus,
    )


def _limits(profile: Profile, facts: Facts) -> Limits:
    """What is wanted, without what this engine can't hold a container to."""
    nothing = Limits()
    limits = replace(_wanted_limits(profile), **{name: getattr(nothing, name) for name in facts.engine.unheld})
    if facts.engine.name is not EngineName.PODMAN or facts.ceiling is None:
        return limits
    # podman is a child of ours, and asks for more processes and files than this host's root may give.
    ceiling = facts.ceiling
    nofile = min(filter(None, (limits.nofile, ceiling.nofile)), default=0)
    return replace(limits, nofile=nofile, nproc=ceiling.nproc)


def restart_policy(wanted: str, engine: EngineInfo) -> str:
    """``wanted``, or none at all on an engine that would start again what was stopped."""
    return "no" if wanted.partition(":")[0] in engine.unkept else wanted


def _metrics_port(address: str, *, own: bool) -> tuple[Port, ...]:
    host, _, port = address.rpartition(":")
    return (Port(host_ip=host, host_port=int(port), container_port=METRICS_PORT),) if address and own else ()


def _memory(limit: str, *, own: bool) -> str:
    """Ours is known to live within its limit; what another image needs, only its maker knows."""
    if limit != "auto":
        return limit
    return OWN_MEMORY if own else ""


def _user(profile: Profile, facts: Facts, data: DataPlan) -> str:
    if profile.image.user:
        return profile.image.user
    if data.kind == "volume":
        return ""  # a new volume belongs to the image's own user
    if facts.engine.rootless and facts.engine.name is not EngineName.PODMAN:
        return "0:0"  # which is the invoking user on the host, and nobody more
    return f"{data.uid}:{data.gid}"


def _userns(profile: Profile, facts: Facts, data: DataPlan) -> str:
    """Where the user inside must be mapped to the invoking one, so that the files on the host are that one's."""
    if not facts.engine.rootless or facts.engine.name is not EngineName.PODMAN or data.kind == "volume":
        return ""
    if not profile.image.user:
        return "keep-id"
    uid, _, gid = profile.image.user.partition(":")
    return f"keep-id:uid={uid},gid={gid}"


def _warnings(profile: Profile, facts: Facts, network: Network, *, url: str) -> Iterator[str]:
    if not profile.network.bind.is_loopback:
        yield (
            f"{profile.network.bind} is reachable by others: reads need no password and logins are not throttled; "
            "put a TLS proxy in front"
        )
    for name, index in profile.indexes.items():
        if index.accept_confusion and (mirrors := merged(profile.indexes, name)):
            yield warning(name, mirrors)
    dropped = [name for name in facts.engine.unheld if getattr(_wanted_limits(profile), name)]
    if dropped:
        yield (
            f"{facts.engine.name} can't limit {', '.join(dropped)} here, so the server runs without: a rootless engine "
            "needs control groups of version 2, delegated to its user"
        )
    if restart_policy(profile.server.restart, facts.engine) != profile.server.restart:
        yield (
            f"restart: {profile.server.restart} needs containerd 1.7, so nothing starts the server again when it dies "
            "or the host restarts: deployer install-service does at boot"
        )
    if facts.engine.rootless and facts.lingering is False:
        yield f"a rootless {facts.engine.name} ends with its user's last logout: loginctl enable-linger"
    if network.warning:
        yield network.warning
    if proxied(url, facts.proxies):
        host = urlsplit(url).hostname
        yield f"programs here ask their proxy for {url}, too: add {host} to NO_PROXY (deployer exec does so by itself)"
    if network.mode is NetworkMode.HOST and profile.image.ref:
        yield "host network with an image that is not ours: it chooses its own address and port"
