"""What a plan needs to know about this host. Gathered once by :mod:`deployer.host`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from deployer.spec import Container, EngineInfo


class Content(StrEnum):
    """What is at the path of a data directory."""

    ABSENT = "absent"
    EMPTY = "empty"
    DEVPI = "devpi"  # a devpi server directory, ours or not
    FOREIGN = "foreign"  # files of other programs
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
    """A data directory. The numbers of an absent one are those of its nearest existing parent."""

    path: Path
    content: Content
    symlink_to: Path | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0o700
    read_only: bool = False
    parent: Path = Path("/")  # the nearest existing parent
    parent_writable: bool = True
    writable_by_all: Path | None = None  # a directory above, whose entries any user may rename
    free_bytes: int = 1 << 40
    free_inodes: int = 1 << 20
    layout: str = ""  # the first number of .serverversion; empty: not readable
    bare: bool = False  # it holds only deployer's own files, and none of devpi's
    uuid: str = ""  # identity of the data; empty: not readable
    in_use: bool = False  # a server runs on it
    within: Path | None = None  # the data directory of another server that it is in
    used_by: Usage | None = None  # the last deployment that used it; None: unknown
    strangers: Mapping[Path, int] = field(default_factory=dict)  # entries of another uid than the directory's


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The data of the last ``up`` that succeeded: a directory or the name of a volume, and the uuid in it.

    ``upgrading``: the major version of devpi-server that an upgrade, which is not complete, goes to. ``former``: the
    uuid of the data before the last upgrade.
    """

    source: str
    uuid: str
    upgrading: str = ""
    former: str = ""


@dataclass(frozen=True, kw_only=True)
class PortFacts:
    """The port to use (a free one instead of 0), and the program that holds it."""

    number: int
    free: bool = True
    holder: str = ""
    privileged: bool = False  # only root may listen there
    absent: str = ""  # the bind address, if this host does not have it


@dataclass(frozen=True, kw_only=True)
class CertificateFacts:
    """The certificate for HTTPS that ``up`` gives to the server.

    ``source``: its file. ``begins``, ``left``: the time until it is valid, and until it expires. ``due``: one of our
    own CA that is to be made; ``new_authority``: what a new CA is made for, though there was one.
    """

    own_ca: bool
    names: tuple[str, ...] = ()
    source: str = ""
    begins: timedelta | None = None
    left: timedelta | None = None
    fingerprint: str = ""
    due: bool = False
    new_authority: str = ""
    open_key: str = ""  # a file with a key that every user of this host may read
    problem: str = ""  # why it can't be used


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The hard resource limits of an unprivileged user (getrlimit(2)). 0: unlimited."""

    nofile: int
    nproc: int


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The result of one request to one upstream.

    ``stage``: where it ended: resolve, connect, tls, answer, body or done. ``peer``: the address it connected to.
    ``skew``: how far this host's clock is ahead of the upstream's, in seconds.
    """

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
    """A network interface that is up. ``mtu`` in bytes."""

    name: str
    mtu: int
    vpn: bool = False
    bridge: bool = False


@dataclass(frozen=True, kw_only=True)
class Vantage:
    """The probe from one place. ``mtu``: bytes by interface. ``failure``: why the probe could not run."""

    answers: tuple[Reach, ...] = ()
    resolvers: tuple[str, ...] = ()
    mtu: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The probe from a bridged container and, if it ran there, from this host."""

    bridge: Vantage
    host: Vantage | None = None


@dataclass(frozen=True, kw_only=True)
class PluginFacts:
    """What belongs to the plugins of a profile.

    ``profile``: the file of the profile. ``lock``: the text of ``lock_file``, empty where there is none.
    ``environment``: where the process engine has what the lock names. ``files``: directory for the files of options.
    ``digests``: of each file that an option names; empty for one that can't be read.
    """

    profile: Path
    lock: str
    lock_file: Path
    environment: Path
    files: Path
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a plan needs to know about this host."""

    engine: EngineInfo
    uid: int
    gid: int
    home: Path
    port: PortFacts
    tls_port: PortFacts | None = None  # None: no HTTPS
    certificate: CertificateFacts | None = None  # None: no HTTPS
    nginx: bool | None = None  # on this host, where the server is to run without a container; None: not known
    data: DataFacts | None = None  # None: a volume
    volume_absent: bool = False  # the data is to be in a volume that does not exist yet
    recorded: Recorded | None = None  # None: no `up` succeeded yet
    current: Container | None = None  # the container that has the name now
    selinux: bool = False
    lingering: bool | None = None  # loginctl enable-linger; None: no systemd
    ceiling: Ceiling | None = None  # None: this user may raise limits
    ca_file: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    upstream: str = ""  # the index URL of this host's pip; empty: pip's default
    upstream_source: str = ""
    image_ref: str = ""  # reference of our own image
    image_build: str = ""  # digest of its build inputs
    plugins: PluginFacts | None = None  # None: the profile names none
    version: str = ""  # of deployer
    resolv_conf: Path | None = None  # of this host
    measured: Measured | None = None  # None: not probed, or the network has changed since
