"""Find the holder of a port, for an engine that does not check it."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address

from deployer.spec import Port

_PUBLISHED = re.compile(r"\[?([0-9a-fA-F.:]+?)\]?:(\d+)(?:-(\d+))?->[\d-]+/tcp")
"""A published TCP port, or a range of them, in the output of ``ps``."""


def holder_of(port: Port, running: str) -> str:
    """The holder of ``port``; empty when it is free. ``running``: one line per container, its name and its ports."""
    for line in running.splitlines():
        name, _, ports = line.partition(" ")
        if any(
            int(first) <= port.host_port <= int(last or first) and _meet(host, port.host_ip)
            for host, first, last in _PUBLISHED.findall(ports)
        ):
            return name
    return "" if _free(port) else "another program"


def _meet(one: str, other: str) -> bool:
    return one == other or ip_address(one).is_unspecified or ip_address(other).is_unspecified


def _free(port: Port) -> bool:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((port.host_ip, port.host_port))
    except PermissionError:
        return True  # the engine may have the right that we lack
    except OSError:
        return False
    return True
