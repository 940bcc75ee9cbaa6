"""What a server that begins anew in the same process keeps: the lock, its sockets, and nginx.

A server in another process gets the public sockets alone, from the command line that replaces the former one.

The process replaces its program by itself (execve(2)). nginx stays its child, and serves stored pages and files
meanwhile; other requests wait in the backlog of the socket that devpi listens on.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

from deployer.protocol import KEPT, OWN_PYTHON, parsed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that are handled; meanwhile they wait."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Descriptors: the ``lock`` of the server directory, the public ``listeners``, and the ``inner`` socket behind
    nginx (-1 without). ``nginx``: its process id (0 without)."""

    listeners: tuple[int, ...]
    lock: int = -1
    inner: int = -1
    nginx: int = 0

    @classmethod
    def take(cls) -> Kept | None:
        """What the former program of this process kept, or the former process; None without one."""
        said = os.environ.pop(KEPT, "")
        try:
            told = parsed(said)
            kept = cls(**{**told, "listeners": tuple(told["listeners"])})
            for number in kept._descriptors:
                os.set_inheritable(number, False)
        except (ValueError, TypeError, KeyError, OSError):
            return None
        return kept

    @property
    def _descriptors(self) -> tuple[int, ...]:
        return tuple(number for number in (*self.listeners, self.lock, self.inner) if number >= 0)

    @property
    def sockets(self) -> list[socket.socket]:
        """The public ones."""
        return [socket.socket(fileno=number) for number in self.listeners]

    def begin_anew(self, words: Sequence[str]) -> NoReturn:
        """Replace the program of this process by a new server with these arguments, and keep all of this.

        Signals should be blocked: the new server unblocks them. Raises OSError.
        """
        for number in self._descriptors:
            os.set_inheritable(number, True)
        os.environ[KEPT] = json.dumps(asdict(self))
        run_again(words)


def begins_anew() -> bool:
    """Whether this is the process of a server that begins anew."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return bool(parsed(os.environ.get(KEPT, ""))["lock"] >= 0)
    return False


def run_again(words: Sequence[str]) -> NoReturn:
    """Replace the program of this process by a new server with these arguments. Raises OSError."""
    atexit._run_exitfuncs()
    os.execv(OWN_PYTHON[0], (*OWN_PYTHON, "-m", "deployer.server", *words))  # noqa: S606 - the same program
