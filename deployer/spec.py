"""Engine-neutral nouns: what is to run, and what an engine says is running. Frozen data, no behaviour."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

LABEL_PREFIX = "io.devpi.deployer."
LABEL_NAME = LABEL_PREFIX + "name"
LABEL_PROFILE = LABEL_PREFIX + "profile"
LABEL_SPEC = LABEL_PREFIX + "spec-sha256"
LABEL_VERSION = LABEL_PREFIX + "version"
LABEL_URL = LABEL_PREFIX + "url"
"""Where the server answers on this host, so that a deployment can be found without its profile."""
LABEL_BUILD = LABEL_PREFIX + "build-sha256"
"""On an image of ours: the digest of everything that it was built from."""

LABEL_RESTART = LABEL_PREFIX + "restart"
"""The restart policy that a container is to have, where its engine's own is held back until it has started."""

PREVIOUS = ".previous"
"""Suffix of the name under which a replaced container waits until its successor has proven itself."""

THROW_AWAY = ".reach"
"""Suffix of the name of a container that only asks what the network lets through."""


class EngineName(StrEnum):
    NERDCTL = "nerdctl"
    DOCKER = "docker"
    PODMAN = "podman"
    PROCESS = "process"


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    HOST = "host"


class State(StrEnum):
    """What an engine says about a container, in one vocabulary for all engines."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    LOST = "lost"
    """Killed together with the process that was to tell its engine: it can only be removed."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A published TCP port: ``host_ip:host_port`` of the host leads to ``container_port``."""

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
    """SELinux enforces on this host: give the bind a private label (``:Z``)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Zero or empty means: no limit of ours."""

    memory: str = ""  # bytes with an optional unit, as engines take it: "256m"
    pids: int = 0
    nofile: int = 0
    nproc: int = 0
    """Processes of the container's user on the host; for engines whose own default is more than this host allows."""
    cpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One container (or, for ``process``, one supervised process) in the words of no engine.

    ``command`` follows the image's entrypoint. ``labels`` are without :data:`LABEL_SPEC`, which is derived.
    """

    name: str
    image: str
    build: str = ""
    """Digest of what an image of ours was built from: another build makes another container."""
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    network: NetworkMode = NetworkMode.BRIDGE
    ports: tuple[Port, ...] = ()
    user: str = ""  # "uid:gid"; empty = the image's own
    userns: str = ""
    """How users inside map to users of this host, in podman's words; empty = as the engine does by itself."""
    restart: str = "unless-stopped"  # "no" | "on-failure:N" | "unless-stopped" | "always"
    stop_signal: str = "SIGINT"
    stop_timeout: timedelta = timedelta(seconds=10)
    limits: Limits = field(default_factory=Limits)
    read_only: bool = True
    log_max_size: str = "10m"
    log_max_files: int = 3

    def sha256(self) -> str:
        """Digest of everything that makes a container of this spec different from another (labels aside)."""
        record = asdict(self) | {"labels": None, "stop_timeout": self.stop_timeout.total_seconds()}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def all_labels(self) -> tuple[tuple[str, str], ...]:
        """The labels that the container carries, the spec's digest included."""
        return (*self.labels, (LABEL_SPEC, self.sha256()))


@dataclass(frozen=True, kw_only=True)
class Container:
    """What an engine knows of one container, ours or not."""

    id: str
    name: str
    state: State
    image: str  # the reference that it was made from
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

    @property
    def ours(self) -> bool:
        """Whether it carries our label. What does not is never stopped, removed or overwritten."""
        return LABEL_NAME in self.labels


@dataclass(frozen=True, kw_only=True)
class Image:
    id: str
    ref: str
    names: tuple[str, ...] = ()
    """All that it is called; none any more when another image has its name."""
    labels: dict[str, str] = field(default_factory=dict)
    digests: tuple[str, ...] = ()  # "name@sha256:…"
    created_at: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine that answered. ``how`` says through what: the path of a binary, or a socket."""

    name: EngineName
    version: str
    rootless: bool = False
    how: str = ""
    unheld: tuple[str, ...] = ()
    """Limits (fields of :class:`Limits`) that it can't hold a container to on this host."""
    unkept: tuple[str, ...] = ()
    """Restart policies that it does not keep."""
    keeps_from: str = ""
    """What it would take to keep them: the name of a program and its version."""


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """An image to build from ``context`` (a directory that holds a ``Dockerfile``). Nothing in it is secret."""

    context: Path
    tag: str
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, Path], ...] = ()
    """(id, file) of what only a build step may read; only for engines that can."""
