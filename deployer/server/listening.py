"""The public sockets. They are opened before all else: who connects while the server loads waits, and is not refused.

Little is imported here.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

from deployer.protocol import KEPT, ExitCode, Refusal

BACKLOG = 511
PATIENCE = 2.0
"""Seconds that a stopping server has to release the port."""


def early(host: str, port: int) -> list[socket.socket]:
    """Listen at once if the port is free. Otherwise nothing: :func:`bind` reports it, after the checks before it."""
    if KEPT in os.environ:
        return []
    try:
        return bind(host, port, patience=0.0)
    except Refusal:
        return []


def bind(host: str, port: int, *, patience: float = PATIENCE) -> list[socket.socket]:
    """Listen on the port; ``patience``: seconds that its holder may still need to stop. Raises Refusal."""
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
