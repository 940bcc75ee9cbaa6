"""Our own image has one name on an engine, in however many streams the tests run: whoever has another one built under
it, which deployments take up, has to be alone."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO

_HERE = sha256(str(Path(__file__)).encode()).hexdigest()[:8]
"""Other checkouts of this host need not wait for this one."""
_alone: set[str] = set()


def _lock(engine: str, kind: int) -> IO[bytes]:
    file = (Path(tempfile.gettempdir()) / f"deployer-tests-{_HERE}-{engine}.lock").open("ab")
    fcntl.flock(file, kind)
    return file


def share(engine: str) -> IO[bytes] | None:
    """Keep the image as the tests' base makes it, until what is given back is closed or forgotten."""
    return None if engine in _alone else _lock(engine, fcntl.LOCK_SH)


@contextmanager
def alone(engine: str) -> Iterator[None]:
    """While another one is built under its name, and no other test has a deployment of it."""
    with _lock(engine, fcntl.LOCK_EX):
        _alone.add(engine)
        try:
            yield
        finally:
            _alone.remove(engine)
