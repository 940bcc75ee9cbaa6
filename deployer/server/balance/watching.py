"""Where the members are, and which of them answer.

A container that is made anew has another address. A member that hangs refuses no connection: each read that nginx gave
it would wait for minutes, so it is left out until it answers again.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployer.protocol import LIVE_ROUTE
from deployer.server.balance.configuration import is_named

EVERY = 1.0
"""Seconds between two looks at a member."""
PATIENCE = 2.0
"""Seconds that a member has to say that it is there; nginx says it, whatever the server behind it does."""
MISSED = 2
"""Looks in a row without an answer after which a member is left out."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """``address``: ``IP:PORT``; empty while its name has none. ``silent``: it did not answer lately."""

    address: str
    silent: bool = False


def address_of(member: str) -> str:
    """``IP:PORT`` of a member; empty when its name has none now."""
    if not is_named(member):
        return member
    host, _, port = member.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ""
    address = str(min(found)[4][0])  # the same one each time
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def answers(address: str) -> bool:
    """Whether a member says that it is there."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)
    try:
        connection.request("GET", LIVE_ROUTE)
        return connection.getresponse().status < 500  # of a member that knows other names only: 4xx
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Watching:
    """Looks at each member, and tells ``changed`` all of them after each change.

    Each one has a thread of its own: one that does not answer holds up no other.
    """

    def __init__(self, members: Sequence[str], changed: Callable[[Sequence[Member]], None]) -> None:
        self._members, self._changed = members, changed
        self.known = [Member(address="" if is_named(member) else member) for member in members]
        self._lock = threading.Lock()

    def start(self) -> None:
        for number, member in enumerate(self._members):
            threading.Thread(target=self._watch, args=(number, member), daemon=True).start()

    def _watch(self, number: int, member: str) -> None:
        missed = 0
        while True:
            address = address_of(member)
            missed = 0 if not address or answers(address) else missed + 1
            self._note(number, Member(address=address, silent=missed >= MISSED))
            time.sleep(EVERY)

    def _note(self, number: int, found: Member) -> None:
        with self._lock, contextlib.suppress(OSError):  # of a full disk: the next round tries again
            if found != self.known[number]:
                self._changed([*self.known[:number], found, *self.known[number + 1 :]])
                self.known[number] = found
