"""Routes, interfaces and name servers of this host (proc(5), sysfs), and a fingerprint that detects a change.

Reads a few small files and runs no command.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployer.plan.facts import Interface

RESOLV_CONF = Path("/etc/resolv.conf")
# The servers behind the stub of systemd-resolved. The address of the stub never changes.
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_VPN_NAMES = re.compile(r"(tun|tap|wg|ppp|utun|ipsec|xfrm|nordlynx|tailscale|zt|proton|mullvad)[a-z0-9_-]*")
_NET = Path("/sys/class/net")


def interfaces(net: Path = _NET) -> tuple[Interface, ...]:
    """All interfaces that are up, except loopback."""
    return tuple(found for path in sorted(net.glob("*")) if path.name != "lo" and (found := _interface(path)))


def _interface(path: Path) -> Interface | None:
    try:
        up = int((path / "flags").read_text(), 16) & 1  # IFF_UP
        mtu = int((path / "mtu").read_text())
        kind = (path / "uevent").read_text()
    except (OSError, ValueError):
        return None
    vpn = (path / "tun_flags").exists() or "DEVTYPE=wireguard" in kind or bool(_VPN_NAMES.fullmatch(path.name))
    return Interface(name=path.name, mtu=mtu, vpn=vpn, bridge=(path / "bridge").exists()) if up else None


def routes(proc: Path = Path("/proc/net"), *, net: Path = _NET) -> tuple[tuple[str, str, str], ...]:
    """(interface, destination, gateway) of every route. Bridges are left out: they come and go with containers."""
    return tuple(sorted({row for row in (*_v4(proc), *_v6(proc)) if _counts(row, net)}))


def _counts(row: tuple[str, str, str], net: Path) -> bool:
    interface, destination, _ = row
    if interface == "lo" or destination.startswith(("fe80", "ff00")):
        return False
    return not (net / interface / "bridge").exists()


def _v4(proc: Path) -> Iterator[tuple[str, str, str]]:
    for row in _rows(proc / "route")[1:]:
        yield row[0], f"{row[1]}/{row[7]}", row[2]


def _v6(proc: Path) -> Iterator[tuple[str, str, str]]:
    for row in _rows(proc / "ipv6_route"):
        yield row[9], f"{row[0]}/{row[1]}", row[4]


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []


def default_interface(proc: Path = Path("/proc/net")) -> str:
    """The interface of the default route with the smallest metric; empty when there is none."""
    rows = [row for row in _rows(proc / "route")[1:] if row[1] == row[7] == "00000000"]
    return min(rows, key=lambda row: int(row[6]))[0] if rows else ""


def name_servers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The addresses of ``nameserver`` lines (resolv.conf(5))."""
    return tuple(row[1] for row in _rows(path) if len(row) > 1 and row[0] == "nameserver")


def resolv_conf(path: Path = RESOLV_CONF) -> Path | None:
    """The readable resolv.conf of this host; ``None`` when it has none."""
    return path if path.is_file() and os.access(path, os.R_OK) else None


def fingerprint(parts: Sequence[object]) -> str:
    """Digest of the routes, VPNs, name servers and ``parts``. It changes with the network."""
    vpns = [interface.name for interface in interfaces() if interface.vpn]
    record = [routes(), vpns, name_servers(), name_servers(_RESOLVED), *parts]
    return hashlib.sha256(json.dumps(record, default=str).encode()).hexdigest()
