"""The lock of a deployment: one run at a time changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deployer.errors import Locked
from deployer.files import make_private, writable
from deployer.host.state_dir import state_dir


@contextmanager
def hold(name: str, *, wait: float = 0.0, purpose: str = "") -> Iterator[None]:
    """Hold the lock of the deployment ``name`` (flock: the kernel releases it when this process dies).

    ``wait``: seconds to wait for another run. ``purpose``: a lock of its own, for what changes no deployment.
    Raises Locked, ConflictError.
    """
    from filelock import FileLock, Timeout

    path = make_private(state_dir(name)) / (f"{purpose}.lock" if purpose else "lock")
    lock = FileLock(path, mode=0o600)
    with writable(path):
        try:
            lock.acquire(timeout=wait, poll_interval=0.05)
        except Timeout:
            raise Locked(
                f"another {purpose or 'run'} holds the lock of the deployment {name!r}",
                hint="wait for it with --wait SECONDS",
            ) from None
    try:
        yield
    finally:
        lock.release()
