"""Settings that a running server takes, and with which it begins from then on.

The order is a file and a signal. The server begins anew in the same process (:mod:`handover`) with the settings of the
order, and keeps them once it serves. If it can't begin with them, its next start has the former ones again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deployer.protocol import MADE, ExitCode, Refusal, Taken
from deployer.server.boot.handover import begins_anew
from deployer.server.secret_files import Private, read_text, sync, write_private

SIGNAL = signal.SIGHUP


def words(serverdir: Path) -> tuple[str, ...]:
    """The arguments of ``serve`` that this start has, instead of its own; empty: its own.

    Settings that were taken by another container do not count: that one was replaced since.
    """
    private = Private.of(serverdir)
    taken = ordered(private) or Taken.parse(_read(private.settings))
    made = os.environ.get(MADE, "")
    return taken.words if taken is not None and made and taken.made == made else ()


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return read_text(path)
    return None


def ordered(private: Private) -> Taken | None:
    """The order with whose settings a server begins anew."""
    return Taken.parse(_read(private.next_settings)) if begins_anew() else None


def keep(private: Private, order: Taken | None) -> None:
    """Keep the settings of ``order``: the server serves with them. A later order waits for the signal that follows."""
    with contextlib.suppress(OSError):  # the disk is full: the next start has the former ones
        if order is not None and Taken.parse(_read(private.next_settings)) == order:
            private.next_settings.replace(private.settings)
            sync(private.directory)


def forget(private: Private) -> None:
    """Forget an order: the server did not begin with its settings."""
    with contextlib.suppress(OSError):
        private.next_settings.unlink()


def give(private: Private, listeners: Sequence[socket.socket]) -> bool:
    """Send the public sockets where an order says; False when it says nothing of them. Called by a signal handler."""
    order = Taken.parse(_read(private.next_settings))
    if order is None or not order.to:
        return False
    forget(private)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(order.to)
        socket.send_fds(connection, [b"\n"], [listener.fileno() for listener in listeners])
    return True


def take(serverdir: Path, text: str) -> None:
    """Order the server that runs on ``serverdir`` to begin anew with the settings in ``text``. Raises Refusal.

    Settings without arguments stand for those that the server has.
    """
    private = Private.of(serverdir)
    order = Taken.parse(text)
    if order is None:
        raise Refusal("these are no settings", hint="deployer up", code=ExitCode.USAGE)
    if not (order.words or order.to) and (taken := Taken.parse(_read(private.settings))) is not None:
        order = replace(taken, id=order.id)
    try:
        server = _server(private)
        write_private(private.next_settings, order.text)
        os.kill(server, SIGNAL)
    except (OSError, ValueError) as error:
        raise Refusal(
            f"no server on {serverdir} takes settings: {error}", hint="deployer restart", code=ExitCode.CONFLICT
        ) from None


def _server(private: Private) -> int:
    """The process id in the lock, which is valid for as long as it is locked. Raises OSError, ValueError."""
    descriptor = os.open(private.lock, os.O_RDWR)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise ValueError("none runs")
        return int(os.read(descriptor, 32) or b"0") or _unknown()
    finally:
        os.close(descriptor)


def _unknown() -> int:
    raise ValueError("an older server runs")
