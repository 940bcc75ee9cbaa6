"""The addresses of members that are told by name: a container that is made anew has another one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from deployer.server.balance.configuration import is_named

EVERY = 1.0
"""Seconds between two questions."""


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


class Following:
    """Asks for the address of each named member, and tells ``changed`` all addresses after each change.

    Each name has a thread of its own: a name server that does not answer holds up no other member.
    """

    def __init__(self, members: Sequence[str], changed: Callable[[Sequence[str]], None]) -> None:
        self._members, self._changed = members, changed
        self.known = ["" if is_named(member) else member for member in members]
        self._lock = threading.Lock()

    def start(self) -> None:
        for number, member in enumerate(self._members):
            if is_named(member):
                threading.Thread(target=self._follow, args=(number, member), daemon=True).start()

    def _follow(self, number: int, member: str) -> None:
        while True:
            found = address_of(member)
            with self._lock, contextlib.suppress(OSError):  # of a full disk: the next round tries again
                if found != self.known[number]:
                    self._changed([*self.known[:number], found, *self.known[number + 1 :]])
                    self.known[number] = found
            time.sleep(EVERY)
