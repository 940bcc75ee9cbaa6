"""Our own image has one name on an engine, in however many streams the tests run: whoever has another one built under
it has to be alone."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

_HERE = sha256(str(Path(__file__)).encode()).hexdigest()[:8]
"""Other checkouts of this host need not wait for this one."""
_alone: set[str] = set()


@contextmanager
def _lock(engine: str, kind: int) -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"deployer-tests-{_HERE}-{engine}.lock").open("ab") as file:
        fcntl.flock(file, kind)
        yield


@contextmanager
def shared(engine: str) -> Iterator[None]:
    """While the image is wanted as the tests' base makes it."""
    if engine in _alone:
        yield
        return
    with _lock(engine, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(engine: str) -> Iterator[None]:
    """While another one is built under its name."""
    with _lock(engine, fcntl.LOCK_EX):
        _alone.add(engine)
        try:
            yield
        finally:
            _alone.remove(engine)
