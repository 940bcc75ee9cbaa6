"""What a plan needs to know of this host, as frozen data. Asked once, in ``host.py``; never asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deployer.spec import Container, EngineInfo


class Content(StrEnum):
    """What is at the path of a data directory."""

    ABSENT = "absent"
    EMPTY = "empty"
    DEVPI = "devpi"  # a devpi server directory, ours or not
    FOREIGN = "foreign"  # somebody else's files
    NOT_A_DIRECTORY = "not-a-directory"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The deployment that a data directory belongs to. ``state``: the state directory of the user who deployed it."""

    name: str
    state: str
    uid: int


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A data directory as it is. Of one that is absent, the numbers are those of the nearest parent."""

    path: Path
    content: Content
    symlink_to: Path | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0o700
    read_only: bool = False
    parent: Path = Path("/")  # the nearest existing parent
    parent_writable: bool = True
    free_bytes: int = 1 << 40
    free_inodes: int = 1 << 20
    layout: str = ""  # the first number of .serverversion; empty when there is none that can be read
    bare: bool = False  # nothing of devpi is in it yet, or any more: only what deployer keeps there
    uuid: str = ""  # the identity of the data; empty when there is none that can be read
    in_use: bool = False  # a server runs on it
    used_by: Usage | None = None  # the deployment that used it last; None when that is not known
    strangers: Mapping[Path, int] = field(default_factory=dict)  # entries of another uid than the directory's


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The data of the last ``up`` that succeeded: a directory or the name of a volume, and the uuid in it."""

    source: str
    uuid: str


@dataclass(frozen=True, kw_only=True)
class PortFacts:
    """The port that would be used (a free one was chosen when 0 was asked for), and who holds it."""

    number: int
    free: bool = True
    holder: str = ""
    privileged: bool = False  # only root may listen there
    absent: str = ""  # the address, when this host does not have it


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What a program that may not raise its own resource limits can give to another at most (getrlimit(2)); 0 = any
    number."""

    nofile: int
    nproc: int


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What came of asking one index for one page. ``stage`` is how far it came: resolve, connect, tls, answer, body
    or done; ``peer`` what was connected to; ``skew`` the seconds that the clock here is ahead of the one there."""

    url: str
    stage: str = "resolve"
    ok: bool = False
    status: int = 0
    bytes: int = 0
    seconds: float = 0.0
    peer: str = ""
    addresses: tuple[str, ...] = ()
    error: str = ""
    skew: float | None = None


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A network interface that is up; ``mtu`` in bytes."""

    name: str
    mtu: int
    vpn: bool = False
    bridge: bool = False


@dataclass(frozen=True, kw_only=True)
class Vantage:
    """What was seen from one place. ``mtu``: bytes by interface; ``failure``: why nothing could be asked there."""

    answers: tuple[Reach, ...] = ()
    resolvers: tuple[str, ...] = ()
    mtu: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The upstreams as seen from a bridged container, and from this host where that was asked as well."""

    bridge: Vantage
    host: Vantage | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    engine: EngineInfo
    uid: int
    gid: int
    home: Path
    port: PortFacts
    data: DataFacts | None = None  # None: a volume
    recorded: Recorded | None = None  # None: no `up` succeeded yet
    current: Container | None = None  # whatever carries the name now
    selinux: bool = False
    lingering: bool | None = None  # systemd keeps this user's programs after the last logout; None: no systemd
    ceiling: Ceiling | None = None  # None: this user may raise limits, or the engine is not started by this user
    ca_file: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    upstream: str = ""  # what the host's pip installs from; empty = pip's own default
    upstream_source: str = ""
    image_ref: str = ""  # our own image
    image_build: str = ""  # the digest of what it would be built from
    version: str = ""  # of deployer
    resolv_conf: Path | None = None  # where this host says which name servers it asks
    measured: Measured | None = None  # None: not asked, or the network is another one since
