"""The public sockets. They are opened before all else: who connects while the server loads waits, and is not refused.

Little is imported here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from deployer.protocol import KEPT, ExitCode, Refusal

BACKLOG = 511
PATIENCE = 2.0
"""Seconds that a stopping server has to release the port."""


Place = tuple[str, int]
"""A host and a port."""


def places(options: Namespace) -> tuple[Place, ...]:
    """Where a server with these options listens: for HTTP and, if it has an address, for HTTPS."""
    return ((options.host, options.port), *((parse_address(options.tls),) if options.tls else ()))


def parse_address(text: str) -> Place:
    """Host and port of ``HOST:PORT``; an IPv6 address may be in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def early(wanted: Sequence[Place]) -> list[socket.socket]:
    """Listen at once where a port is free. The others are missing: :func:`complete` reports them, after the checks
    before it."""
    found: list[socket.socket] = []
    for host, port in () if KEPT in os.environ else wanted:
        with contextlib.suppress(Refusal):
            found += bind(host, port, patience=0.0)
    return found


def complete(found: Sequence[socket.socket], wanted: Sequence[Place], *, shared: bool = False) -> list[socket.socket]:
    """``found`` without the sockets of other ports, and new sockets for the ports that have none. ``shared``: another
    process of this user may listen there, too. Raises Refusal."""
    ports = {port for _, port in wanted}
    for listener in found:
        if port_of(listener) not in ports:
            listener.close()
    kept = [listener for listener in found if listener.fileno() >= 0]
    have = {port_of(listener) for listener in kept}
    for host, port in wanted:
        if port not in have:
            kept += bind(host, port, shared=shared)
    return kept


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def bind(host: str, port: int, *, patience: float = PATIENCE, shared: bool = False) -> list[socket.socket]:
    """Listen on the port; ``patience``: seconds that its holder may still need to stop. ``shared``: with another
    process of this user that listens there so. Raises Refusal."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Refusal(
            f"invalid address {host}: {error.strerror}", hint="choose another address", code=ExitCode.CONFLICT
        ) from None
    taken: list[socket.socket] = []
    for family, kind, protocol, _, address in found:
        listener = socket.socket(family, kind, protocol)
        taken.append(listener)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            share(listener)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            _bind(listener, address, patience)
            listener.listen(BACKLOG)  # fails if another one, which listens now, was bound at the same moment
        except OSError as error:
            for other in taken:
                other.close()
            why = "is taken" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
            raise Refusal(
                f"port {port} of {host} {why}", hint="free the port, or choose another one", code=ExitCode.CONFLICT
            ) from None
    return taken


def share(listener: socket.socket) -> None:
    """Let another process of this user listen at the same address, until one of both ends (socket(7))."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind(listener: socket.socket, address: Any, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return listener.bind(address)
        except OSError as error:
            # The nginx of a killed server may still be stopping.
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
