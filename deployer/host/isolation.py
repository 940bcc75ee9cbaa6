"""Run a program in a network of its own that leads nowhere, except to one socket that this process serves.

``unshare`` makes the namespace: root may, and others where the kernel lets them have user namespaces. The program that
runs inside first (:mod:`deployer.host.isolated`) listens on a loopback address there and passes the socket out.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployer.errors import ConflictError, EngineUnreachable
from deployer.host.runner import Runner
from deployer.protocol import OWN_PYTHON

ADDRESS = ("127.0.0.1", 3141)
"""Where the socket listens, inside."""
URL = f"http://{ADDRESS[0]}:{ADDRESS[1]}"


_PASSED = 30.0
"""Seconds until the program inside has passed its socket out."""
_RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")  # Ubuntu
_MOST = Path("/proc/sys/user/max_user_namespaces")


def flags() -> tuple[str, ...]:
    """The options of ``unshare`` for this user."""
    return ("--net",) if os.geteuid() == 0 else ("--map-root-user", "--net")


def require() -> None:
    """Raise ConflictError where no such network can be made."""
    words = ("unshare", *flags(), "true")
    try:
        done = Runner().run(words)
        why = done.stderr.strip() if done.returncode else ""
    except EngineUnreachable as error:
        why = error.message
    if why:
        key = _RESTRICTED if _RESTRICTED.exists() else _MOST
        setting = f"{'.'.join(key.parts[3:])}={'0' if key == _RESTRICTED else '10000'}"
        raise ConflictError(
            f"no network namespace can be made here, so nothing can be proved: {why}",
            hint=f"run it as root, or allow user namespaces: sudo sysctl -w {setting}",
        )


@contextmanager
def isolated(directory: Path, serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, ...]]:
    """Yield the words to put before a program's; ``serve`` gets the socket that listens in its network, in a thread.

    ``directory``: private, for the socket by which it comes. Each program that is run gets a network of its own.
    """
    path = directory / "network"
    over = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(path))
        door.listen()
        thread = threading.Thread(target=_admit, args=(door, serve, over), name="isolation", daemon=True)
        thread.start()
        try:
            yield ("unshare", *flags(), *OWN_PYTHON, "-m", "deployer.host.isolated", str(path), "--")
        finally:
            over.set()
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(str(path))
            thread.join()
            path.unlink(missing_ok=True)


def _admit(door: socket.socket, serve: Callable[[socket.socket], None], over: threading.Event) -> None:
    while not over.is_set():
        with suppress(OSError):
            connection, _ = door.accept()
            with connection:
                connection.settimeout(_PASSED)
                _, descriptors, _, _ = socket.recv_fds(connection, 16, 1)
                if descriptors:
                    serve(socket.socket(fileno=descriptors[0]))
                    connection.sendall(b"served")
