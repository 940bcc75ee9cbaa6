"""The differences between nerdctl, docker and podman, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from deployer.engines import injected
from deployer.engines.shapes import shaped
from deployer.spec import EngineName, State

RUNTIME_CURES = (
    (
        re.compile("cgroups in hybrid mode not supported"),
        'apt-get install runc, and in /etc/containers/containers.conf: [engine] runtime = "runc"',
    ),
    (
        re.compile("error setting rlimit|setrlimit"),
        "this host's root may not raise limits: lower server.nofile below 'ulimit -Hn', and in "
        '/etc/containers/containers.conf: [containers] default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]',
    ),
)
"""Messages of runc and crun on unsuitable hosts, under any engine, and the hints."""

CLIENT_CURES = (
    (
        re.compile(r'context "?[^"\n]*"?: context not found|context .* does not exist|no such context'),
        "choose an existing context: docker context ls, then docker context use NAME; or unset DOCKER_CONTEXT",
    ),
    (
        re.compile(r"(ca|cert|key)\.pem: (no such file|permission denied)|x509: |tls: "),
        "correct DOCKER_CERT_PATH and DOCKER_HOST, or unset DOCKER_TLS_VERIFY and DOCKER_HOST",
    ),
    (
        re.compile(r"unable to parse docker host|Failed to initialize: "),
        "correct DOCKER_HOST and the context (docker context ls), or unset DOCKER_HOST and DOCKER_CONTEXT",
    ),
)
"""Messages of docker's client about its own settings, before it asks an engine, and the hints."""

TRUST_CURES = (
    (
        re.compile(r"notary server|trust data|content trust"),
        "docker's content trust accepts signed images only: unset DOCKER_CONTENT_TRUST",
    ),
)
"""Messages of docker's client about signatures, and the hint."""

BUILDKIT_CURES = (
    (
        re.compile("buildctl. needs to be installed|no buildkit host is available"),
        "install BuildKit and start buildkitd, or --engine process",
    ),
)
"""Messages of nerdctl without BuildKit, which it needs to build, and the hint."""


@dataclass(frozen=True, kw_only=True)
class Nature:
    """What an engine reports about itself. ``unheld``: the limits that it can't enforce."""

    rootless: bool
    unheld: tuple[str, ...] = ()


@shaped
def docker_nature(info: Mapping[str, Any]) -> Nature:
    """Parse the ``info`` of docker and nerdctl. A limit that it does not mention is enforced."""
    keys = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpus": "CpuCfsQuota"}
    return Nature(
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        unheld=tuple(limit for limit, key in keys.items() if info.get(key) is False),
    )


@shaped
def podman_nature(info: Mapping[str, Any]) -> Nature:
    """Parse the ``info`` of podman. Rootless, it enforces limits with delegated controllers only (podman-run(1))."""
    host = info.get("host") or {}
    rootless = bool((host.get("security") or {}).get("rootless"))
    given = host.get("cgroupControllers") or () if host.get("cgroupVersion") != "v1" else ()
    controllers = {"memory": "memory", "pids": "pids", "cpus": "cpu"}
    unheld = tuple(limit for limit, name in controllers.items() if rootless and name not in given)
    return Nature(rootless=rootless, unheld=unheld)


def keeps_all(version: Mapping[str, Any]) -> tuple[str, ...]:
    """Every restart policy is supported."""
    return ()


@shaped
def containerd_unkept(version: Mapping[str, Any]) -> tuple[str, ...]:
    """The restart policies that containerd does not support.

    Its restart plugin tells a stopped container from a failed one since 1.7. Before, it restarts always or never.
    """
    for component in (version.get("Server") or {}).get("Components") or ():
        number = re.match(r"v?(\d+)\.(\d+)", str(component.get("Version")))
        if component.get("Name") == "containerd" and number and (int(number[1]), int(number[2])) < (1, 7):
            return ("on-failure", "unless-stopped")
    return ()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one engine is spelt, and what its answers mean. Patterns are searched in stderr, ignoring case."""

    name: EngineName
    version: tuple[str, ...]
    """Arguments that print the version as JSON, and fail if only the client answers."""
    version_key: tuple[str, ...]
    """Path of the engine's version in that JSON."""
    info: tuple[str, ...]
    """Arguments that print information about the engine as JSON; used only if it may be rootless."""
    nature: Callable[[Mapping[str, Any]], Nature]
    """Parses that JSON."""
    elsewhere: tuple[str, ...] = ()
    """Environment variables that select another engine than root's on this host."""
    address: str = ""
    """The variable with the address of its engine; empty: always an engine of this host."""
    context: tuple[str, ...] = ()
    """Path in the JSON of ``version`` of the settings that name the engine, unless they are ``default``."""
    endpoint: tuple[str, ...] = ()
    """Arguments that print the address of the engine that ``context`` names."""
    injects: Callable[[Mapping[str, str]], tuple[str, ...]] = injected.nothing
    """Variables that its client adds to containers and builds, from this program's environment."""
    blank_build_arguments: bool = False
    """Whether only a blank build argument keeps its client from adding one, since it has no option for that."""
    unkept: Callable[[Mapping[str, Any]], tuple[str, ...]] = keeps_all
    """The restart policies that it does not support, from the JSON of ``version``."""
    keeps_from: str = ""
    """The program and version that supports all of them."""
    guards: bool = True
    """Whether it always refuses a taken name and a taken port."""
    networks: tuple[str, ...] = ()
    """Path of the container's networks in ``inspect`` (a JSON list as text), if it has no network mode."""
    tells_settings: bool = True
    """Whether ``inspect`` reports limits, restart policy and environment truthfully."""
    failed_codes: frozenset[int] = frozenset({125, 126, 127})
    """Exit codes of ``run`` that mean, together with ``failed_words`` in stderr, that nothing ran."""
    failed_words: re.Pattern[str] = re.compile("")
    at_rest: frozenset[str] = frozenset()
    """The states of a finished stop, for an engine whose ``stop`` ignores a container that has just died and is about
    to be restarted. Empty: ``stop`` always works."""
    late: float = 0.0
    """Seconds after a ``stop`` in which the engine may start a container that had ended before, since it had already
    chosen to."""
    raced: re.Pattern[str] | None = None
    """Its message if it starts or cleans up the same container at the same moment."""
    held: tuple[str, str] | None = None
    """A label with its value that turns the engine's restarts off until the container runs; then ``update`` sets the
    policy. For an engine that would start the container twice."""
    monitor: tuple[str, ...] = ()
    """Path in ``inspect`` of the pid of the monitor, which reports the container's end to the engine. If both are
    killed, the engine reports the container as running for ever."""
    exec_code: re.Pattern[str] | None = None
    """Its message with the exit code of the executed command (group 1), if its own exit code differs."""
    volume_labels_csv: bool = False
    """Whether ``volume create`` reads the value of ``--label`` as a CSV record."""
    build: tuple[str, ...] = ("build", "--network=host")
    """Arguments that build, and leave no container of a step behind, even if the build fails."""
    build_chatter: re.Pattern[str] | None = None
    """Lines of a build to hide: advice about the engine, and warnings about optional arguments."""
    builds_with_secrets: tuple[str, ...] | None = ()
    """Arguments that succeed if builds support secrets. Empty: always; ``None``: never."""
    install: str = ""
    start: str = ""
    cures: tuple[tuple[re.Pattern[str], str], ...] = RUNTIME_CURES
    """(message, hint) on hosts that don't suit the engine; searched first."""
    misled: tuple[tuple[re.Pattern[str], str], ...] = ()
    """(message, hint) of a client whose settings lead to no engine."""
    refused: re.Pattern[str] = re.compile(
        r"permission denied while trying to connect|connect: permission denied|PermissionError\(13"
        r"|access containerd socket.*permission denied",
        re.IGNORECASE,
    )
    """Its message when this user may not ask the engine. A container may be refused other things."""
    down: re.Pattern[str] = re.compile(
        r"cannot connect to|is the docker daemon running|failed to connect to the docker api|error during connect"
        r"|cannot access containerd socket|containerd not running|failed to connect: dial|unable to connect to podman",
        re.IGNORECASE,
    )
    """Its message when no engine answers the client. What an engine says of a registry or a file is another matter."""
    absent: re.Pattern[str] = re.compile(
        r"no such (object|container|image|volume)|no container|not found", re.IGNORECASE
    )
    name_taken: re.Pattern[str] = re.compile(
        r"name .* is already (in use|used)|conflict.*name|that name is already in use", re.IGNORECASE
    )
    port_taken: re.Pattern[str] = re.compile(
        r"address already in use|port is already allocated|bind for", re.IGNORECASE
    )
    image_missing: re.Pattern[str] = re.compile(
        r"no such image|unable to find image|image not known|image.* not (found|available)|pull access denied",
        re.IGNORECASE,
    )
    image_used: re.Pattern[str] = re.compile(r"conflict: unable to|image used by|in use by a container", re.IGNORECASE)
    states: Mapping[str, State] = field(
        default_factory=lambda: {
            "created": State.CREATED,
            "configured": State.CREATED,
            "initialized": State.CREATED,
            "running": State.RUNNING,
            "paused": State.PAUSED,
            "restarting": State.RESTARTING,
            "exited": State.STOPPED,
            "stopped": State.STOPPED,
            "dead": State.STOPPED,
            "removing": State.STOPPED,
            "stopping": State.RUNNING,
        }
    )


NERDCTL = Dialect(
    name=EngineName.NERDCTL,
    version=("version", "--format", "{{json .}}"),
    version_key=("Client", "Version"),
    info=("info", "--format", "{{json .}}"),
    nature=docker_nature,
    unkept=containerd_unkept,
    keeps_from="containerd 1.7",
    guards=False,  # nerdctl 2.1 gives a name twice while containerd restarts its owner
    networks=("Config", "Labels", "nerdctl/networks"),
    tells_settings=False,  # nerdctl 2.1 reports a memory limit as 0, and no restart policy
    failed_codes=frozenset({1}),
    failed_words=re.compile(r"^time=\S+ level=fatal ", re.MULTILINE),
    # containerd checks every ten seconds what to restart. Before nerdctl 2.3.2 it starts a container that nerdctl is
    # just starting a second time, which may then have no published port.
    held=("containerd.io/restart.policy", "no"),
    # Between its look at the containers and their starts it does not see that one was stopped.
    late=1.0,
    raced=re.compile(
        r"task \S+: already exists|runtime\.v2\.task/\S+: file exists|cannot start a container that has stopped"
    ),
    exec_code=re.compile(r'^time=\S+ level=fatal msg="exec failed with exit code (\d+)"\n?', re.MULTILINE),
    cures=(*RUNTIME_CURES, *BUILDKIT_CURES),
    # BuildKit refuses the host network by default.
    build=("build",),
    install="see your distribution, or the nerdctl project's own archive",
    start="systemctl start containerd",
)

DOCKER = Dialect(
    name=EngineName.DOCKER,
    version=("version", "--format", "{{json .}}"),
    version_key=("Server", "Version"),
    info=("info", "--format", "{{json .}}"),
    nature=docker_nature,
    elsewhere=("DOCKER_HOST", "DOCKER_CONTEXT"),
    address="DOCKER_HOST",
    context=("Client", "Context"),
    endpoint=("context", "inspect", "--format", "{{.Endpoints.docker.Host}}"),
    cures=(*RUNTIME_CURES, *TRUST_CURES),
    misled=CLIENT_CURES,
    injects=injected.from_docker_config,
    blank_build_arguments=True,
    # --force-rm: the classic builder keeps the container of a failed step. buildx accepts the option.
    build=("build", "--network=host", "--force-rm"),
    build_chatter=re.compile(
        r"^(DEPRECATED: The legacy builder|Install the buildx component|BuildKit is currently disabled"
        r"|environment-variable\.|https://docs\.docker\.com/go/buildx/)"
    ),
    builds_with_secrets=("buildx", "version"),
    install="apt-get install docker.io",
    start="systemctl start docker",
)

PODMAN = Dialect(
    name=EngineName.PODMAN,
    version=("version", "--format", "json"),
    version_key=("Client", "Version"),
    info=("info", "--format", "json"),
    nature=podman_nature,
    elsewhere=("CONTAINER_HOST", "CONTAINER_CONNECTION"),
    address="CONTAINER_HOST",
    injects=injected.from_its_environment,
    build=("build", "--network=host", "--http-proxy=false"),
    # It reports "stopped" until its clean-up has applied the restart policy.
    monitor=("State", "ConmonPid"),
    volume_labels_csv=True,  # its --label is a pflag StringSlice there, and a StringArray for `run`
    build_chatter=re.compile(
        r'level=warning msg="missing .* build argument\.'
    ),  # one for each argument without a default
    at_rest=frozenset({"configured", "created", "exited"}),
    # Its clean-up started the container again while `podman stop` was about to clean it up itself.
    raced=re.compile(r"is running or paused, refusing to clean up"),
    # Without a registry search list podman takes short names for local ones only.
    install="apt-get install podman",
    start="podman system migrate",
)


def dialect_of(name: EngineName) -> Dialect | None:
    """The dialect of the engine ``name``; ``None`` for one that has no command line."""
    match name:
        case EngineName.NERDCTL:
            return NERDCTL
        case EngineName.DOCKER:
            return DOCKER
        case EngineName.PODMAN:
            return PODMAN
        case EngineName.PROCESS:
            return None
        case _:
            assert_never(name)
