"""Engine-neutral nouns: what to run, what runs, and what an engine can do. Frozen data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from deployer.protocol import MADE

LABEL_PREFIX = "io.devpi.deployer."
LABEL_NAME = LABEL_PREFIX + "name"
LABEL_PROFILE = LABEL_PREFIX + "profile"
LABEL_SPEC = LABEL_PREFIX + "spec-sha256"
LABEL_VERSION = LABEL_PREFIX + "version"
LABEL_URL = LABEL_PREFIX + "url"
"""The server's URL on this host: finds a deployment without its profile."""
LABEL_TLS = LABEL_PREFIX + "tls"
"""The URL of HTTPS on this host, if the server has it."""
LABEL_USER = LABEL_PREFIX + "user"
"""The uid of the user who deployed it: engines are shared, deployments are not."""
LABEL_MADE = LABEL_PREFIX + "made"
"""The identity of the container, another one each time that one is made. Its server takes settings while it runs."""
LABEL_BASE = LABEL_PREFIX + "base"
"""Of our image: the base that it was built on, by digest, or by ID where it came from no registry."""
LABEL_BUILD = LABEL_PREFIX + "build-sha256"
"""On our own image: the digest of its build inputs."""

LABEL_RESTART = LABEL_PREFIX + "restart"
"""The restart policy to set once the container runs, on engines that get the policy only then."""

PREVIOUS = ".previous"
"""Suffix of a replaced container's name. It is kept until the new container is ready, for a rollback."""

THROW_AWAY = ".reach"
"""Suffix of the name of the container that probes the upstreams."""


PROXY_VARIABLES = tuple(
    spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY") for spelt in (name, name.lower())
)
"""Environment variables that name a proxy for programs, or what needs none."""


class EngineName(StrEnum):
    NERDCTL = "nerdctl"
    DOCKER = "docker"
    PODMAN = "podman"
    PROCESS = "process"


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    HOST = "host"
    OTHER = "other"
    """No network, or that of another container. Only a container that somebody else made has it."""


class State(StrEnum):
    """The state of a container, in one vocabulary for all engines."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    LOST = "lost"
    """Killed together with its monitor process, so the engine still reports it as running. Can only be removed."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A published TCP port: ``host_ip:host_port`` on the host forwards to ``container_port``."""

    host_ip: str
    host_port: int
    container_port: int


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A bind (``source`` is an absolute path of the host) or a named volume (``source`` is its name)."""

    kind: str  # "bind" | "volume"
    source: str
    target: str
    read_only: bool = False
    relabel: bool = False
    """Give the bind a private SELinux label (``:Z``)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resource limits. Zero or empty: no limit."""

    memory: str = ""  # bytes with an optional unit, as engines take it: "256m"
    pids: int = 0
    nofile: int = 0
    nproc: int = 0
    """Processes of the container's user on the host. For engines whose default exceeds this host's hard limit."""
    cpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One container, or one supervised process, described without the words of any engine.

    ``command`` follows the image's entrypoint. ``labels`` exclude :data:`LABEL_SPEC`, which is derived.
    """

    name: str
    image: str
    build: str = ""
    """Digest of the build inputs of our own image. A new build replaces the container."""
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    network: NetworkMode = NetworkMode.BRIDGE
    ports: tuple[Port, ...] = ()
    user: str = ""  # "uid:gid"; empty: the image's user
    userns: str = ""
    """User namespace mode in podman's syntax; empty: the engine's default."""
    restart: str = "unless-stopped"  # "no" | "on-failure:N" | "unless-stopped" | "always"
    stop_signal: str = "SIGINT"
    stop_timeout: timedelta = timedelta(seconds=10)
    limits: Limits = field(default_factory=Limits)
    read_only: bool = True
    log_max_size: str = "10m"
    log_max_files: int = 3
    made: str = ""
    """Identity of the container; empty: its server takes no settings while it runs."""
    withheld: tuple[str, ...] = ()
    """Variables that the engine's client would add by itself (:attr:`EngineInfo.injects`), and must not."""

    def sha256(self) -> str:
        """Digest of all that was asked for: every field except the labels, ``made`` and ``withheld``. Another one
        replaces the container, or changes its settings."""
        record = asdict(self) | {"labels": None, "stop_timeout": self.stop_timeout.total_seconds()}
        # The second one follows the client's configuration, which changes nothing in the container.
        del record["made"], record["withheld"]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    @property
    def blanks(self) -> tuple[str, ...]:
        """The variables to set to nothing, so that the engine's client does not set them."""
        named = dict(self.env)
        return tuple(name for name in self.withheld if name not in named)

    def all_labels(self) -> tuple[tuple[str, str], ...]:
        """All labels of the container, including the spec's digest."""
        made = ((LABEL_MADE, self.made),) if self.made else ()
        return (*self.labels, (LABEL_SPEC, self.sha256()), *made)

    def all_env(self) -> tuple[tuple[str, str], ...]:
        """All variables of the container, including its identity."""
        return (*self.env, *(((MADE, self.made),) if self.made else ()))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a container is set up, as its engine reports it. ``None``: the engine does not report it."""

    restart: str | None = None  # as in ContainerSpec
    memory: int | None = None  # bytes; 0: no limit
    pids: int | None = None
    cpus: float | None = None  # 0: no limit
    user: str | None = None
    read_only: bool | None = None
    confined: bool | None = None
    """Without capabilities, and without a way to get any."""
    env: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container as its engine reports it, ours or not."""

    id: str
    name: str
    state: State
    image: str  # the reference it was created from
    image_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    pid: int | None = None
    started_at: str = ""  # RFC 3339
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: NetworkMode | None = None
    command: tuple[str, ...] = ()
    """All words, from its entry point on."""
    settings: Settings = field(default_factory=Settings)

    @property
    def ours(self) -> bool:
        """Whether it has our label. Other containers are never stopped, removed or overwritten."""
        return LABEL_NAME in self.labels

    def of_another(self, uid: int) -> bool:
        """Whether a user other than ``uid`` deployed it; False where its label does not say who."""
        return of_another(self.labels, uid)


def of_another(labels: Mapping[str, str], uid: int) -> bool:
    """Whether labels name a user other than ``uid``; False where they do not say who."""
    return labels.get(LABEL_USER, str(uid)) != str(uid)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A named volume, as an engine describes it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Image:
    """One local image."""

    id: str
    ref: str
    names: tuple[str, ...] = ()
    """Its tags. Empty when another image has taken its only tag."""
    labels: dict[str, str] = field(default_factory=dict)
    digests: tuple[str, ...] = ()  # "name@sha256:…"
    created_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What an engine can do, whatever its version and host. The defaults describe docker."""

    containers: bool = True
    """The server gets a file system, users and ports of its own. Otherwise it is a process on this host."""
    images: bool = True
    """It runs images; :attr:`deployer.engines.base.Engine.images` is set."""
    bridge: bool = True
    """It has bridge networks and publishes ports."""
    volumes: bool = True
    """It has named volumes."""
    daemon: bool = True
    """A daemon starts the containers. Otherwise they inherit this program's resource limits (setrlimit(2))."""
    keep_id: bool = False
    """Rootless, it can map the invoking user to the same uid inside (podman-run(1), ``--userns=keep-id``)."""
    quadlet: bool = False
    """systemd can run its containers from a Quadlet file (podman-systemd.unit(5))."""
    service: str = ""
    """The systemd service to wait for at boot; empty: none."""
    bridge_file: str = ""
    """The file that sets the MTU and name servers of its bridge networks; empty: none."""


def features(name: EngineName) -> Features:
    """The features of the engine ``name``."""
    match name:
        case EngineName.NERDCTL:
            return Features(service="containerd.service", bridge_file="/etc/cni/net.d/nerdctl-bridge.conflist")
        case EngineName.DOCKER:
            return Features(service="docker.service", bridge_file="/etc/docker/daemon.json")
        case EngineName.PODMAN:
            return Features(daemon=False, keep_id=True, quadlet=True, bridge_file="/etc/containers/containers.conf")
        case EngineName.PROCESS:
            return Features(containers=False, images=False, bridge=False, volumes=False, daemon=False)
        case _:
            assert_never(name)


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine that answered. ``how``: the path of its binary, or its socket."""

    name: EngineName
    version: str
    rootless: bool = False
    how: str = ""
    unheld: tuple[str, ...] = ()
    """Limits (fields of :class:`Limits`) that it can't enforce on this host."""
    unkept: tuple[str, ...] = ()
    """Restart policies that it does not support."""
    keeps_from: str = ""
    """What it needs to support them: the name of a program and its version."""
    injects: tuple[str, ...] = ()
    """Variables that its client adds to every container and every build, unless they are set."""
    remote: str = ""
    """Its address, if it is not on this host."""

    @property
    def features(self) -> Features:
        """What every engine of this name can do."""
        return features(self.name)


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """The result of a command that ran to its end."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """An image to build from ``context``, a directory with a ``Dockerfile``. Only ``secrets`` name secret files."""

    context: Path
    tag: str
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    from_environment: tuple[str, ...] = ()
    """Build arguments with the value of this program's environment, so that no command line shows it."""
    secrets: tuple[tuple[str, Path], ...] = ()
    """(id, file) of build secrets, which end up in no layer. Only for engines that support them."""
