"""How nerdctl, docker and podman spell and answer the same things: what differs between them, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

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
"""What runc and crun say on hosts that do not suit them, whichever engine called them, and what helps."""

BUILDKIT_CURES = (
    (
        re.compile("buildctl. needs to be installed|no buildkit host is available"),
        "start buildkitd (BuildKit, which nerdctl builds with, brings it and buildctl), or --engine process",
    ),
)
"""What nerdctl, which builds nothing itself, says where BuildKit is missing, and what helps."""


@dataclass(frozen=True, kw_only=True)
class Nature:
    """``unheld``: the limits that an engine of this nature does not hold containers to."""

    rootless: bool
    unheld: tuple[str, ...] = ()


def docker_nature(info: Mapping[str, Any]) -> Nature:
    """As docker and nerdctl tell it. A limit that is not spoken of is taken for held."""
    keys = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpus": "CpuCfsQuota"}
    return Nature(
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        unheld=tuple(limit for limit, key in keys.items() if info.get(key) is False),
    )


def podman_nature(info: Mapping[str, Any]) -> Nature:
    """A rootless podman holds the limits whose controllers were delegated to the user (podman-run(1))."""
    host = info.get("host") or {}
    rootless = bool((host.get("security") or {}).get("rootless"))
    given = host.get("cgroupControllers") or () if host.get("cgroupVersion") != "v1" else ()
    controllers = {"memory": "memory", "pids": "pids", "cpus": "cpu"}
    unheld = tuple(limit for limit, name in controllers.items() if rootless and name not in given)
    return Nature(rootless=rootless, unheld=unheld)


def keeps_all(version: Mapping[str, Any]) -> tuple[str, ...]:
    """No restart policy is unkept."""
    return ()


def containerd_unkept(version: Mapping[str, Any]) -> tuple[str, ...]:
    """containerd knows whether a container was stopped, or has failed, since 1.7 (its restart plugin); before, it
    starts one again always or never."""
    for component in (version.get("Server") or {}).get("Components") or ():
        number = re.match(r"v?(\d+)\.(\d+)", str(component.get("Version")))
        if component.get("Name") == "containerd" and number and (int(number[1]), int(number[2])) < (1, 7):
            return ("on-failure", "unless-stopped")
    return ()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One engine's ways. Patterns are searched in stderr, ignoring case."""

    name: EngineName
    version: tuple[str, ...]
    """Words that make it answer with JSON, and only when the engine itself answers (not its client alone)."""
    version_key: tuple[str, ...]
    """Where the engine's version is in that answer."""
    info: tuple[str, ...]
    """Words that make it tell about itself in JSON; asked only of an engine that may be rootless."""
    nature: Callable[[Mapping[str, Any]], Nature]
    """What that answer means."""
    elsewhere: tuple[str, ...] = ()
    """Variables that lead to another engine than root's own of this host."""
    unkept: Callable[[Mapping[str, Any]], tuple[str, ...]] = keeps_all
    """The restart policies that it does not keep, from its answer to ``version``."""
    keeps_from: str = ""
    """What it takes to keep all of them."""
    guards: bool = True
    """Whether it refuses a name and a port that somebody else has, each time."""
    networks: tuple[str, ...] = ()
    """Where ``inspect`` has the container's networks as the text of a JSON list, when it tells no mode."""
    failed_codes: frozenset[int] = frozenset({125, 126, 127})
    """Exit codes of ``run`` that are the engine's own (its manual), with ``failed_words`` in stderr: nothing ran."""
    failed_words: re.Pattern[str] = re.compile("")
    at_rest: frozenset[str] = frozenset()
    """The states that a stopped container stays in, for an engine whose ``stop`` does nothing to one that has just died
    and is about to be started again; empty where stopped means stopped."""
    raced: re.Pattern[str] | None = None
    """What it says when it starts the same container at the same moment itself, or clears its last run away."""
    held: tuple[str, str] | None = None
    """The label, with its value, of a container that the engine's own restarts leave alone. It is for an engine that
    wants a container to run before it starts it: a container has it until it runs, and ``update`` gives the policy."""
    monitor: tuple[str, ...] = ()
    """Where ``inspect`` names the process (of this host) that tells the engine of a container's end; whoever was killed
    together with it runs for ever, by the engine's word."""
    exec_code: re.Pattern[str] | None = None
    """What it says where its own exit code is not that of what ``exec`` ran; the group is that."""
    build: tuple[str, ...] = ("build", "--network=host")
    """Words that build; no container of a step is left behind by them, also when the build fails."""
    build_chatter: re.Pattern[str] | None = None
    """Lines of a build about the engine's own future, or about words that nobody need say, and not about the build."""
    builds_with_secrets: tuple[str, ...] | None = ()
    """Words that succeed where a build can be given secrets; none needed when empty, never when None."""
    install: str = ""
    start: str = ""
    cures: tuple[tuple[re.Pattern[str], str], ...] = RUNTIME_CURES
    """What is said when this host does not suit the engine, and what helps; looked for before all else."""
    refused: re.Pattern[str] = re.compile(r"permission denied", re.IGNORECASE)
    down: re.Pattern[str] = re.compile(
        r"cannot connect|is the docker daemon running|no such file or directory|connection refused|connect: ",
        re.IGNORECASE,
    )
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
    guards=False,  # nerdctl 2.1 gives a name twice while containerd starts again who has it
    networks=("Config", "Labels", "nerdctl/networks"),
    failed_codes=frozenset({1}),
    failed_words=re.compile(r"^time=\S+ level=fatal ", re.MULTILINE),
    # containerd's restarts look every ten seconds at what should run: before nerdctl 2.3.2 also at what is just
    # being started, which then is started twice, and may end up without its port.
    held=("containerd.io/restart.policy", "no"),
    raced=re.compile(
        r"task \S+: already exists|runtime\.v2\.task/\S+: file exists|cannot start a container that has stopped"
    ),
    exec_code=re.compile(r'^time=\S+ level=fatal msg="exec failed with exit code (\d+)"\n?', re.MULTILINE),
    cures=(*RUNTIME_CURES, *BUILDKIT_CURES),
    # BuildKit behind nerdctl grants no host network unless it was told to.
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
    # The older builder keeps the container of a step that fails unless it is told; buildx takes the word, too.
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
    # "stopped" is what it says until its clean-up has come by, which heeds the restart policy first.
    monitor=("State", "ConmonPid"),
    build_chatter=re.compile(r'level=warning msg="missing .* build argument\.'),  # of each that has no default
    at_rest=frozenset({"configured", "created", "exited"}),
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
