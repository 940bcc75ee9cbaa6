"""Requests that are answered as if the server was offline; others are not affected.

devpi reads ``Config.offline_mode`` whenever a request opens an index. It knows one value for the whole server, so the
property is replaced. A request with the header is answered in its own thread: no other thread works for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from devpi_server.config import Config

_PROPERTY = "offline_mode"
_ASKED: ContextVar[bool] = ContextVar("deployer_offline", default=False)


def asked() -> bool:
    """Whether the current request is such a request."""
    return _ASKED.get()


@contextmanager
def answering() -> Iterator[None]:
    """Answer the current request so."""
    before = _ASKED.set(True)
    try:
        yield
    finally:
        _ASKED.reset(before)


def install() -> None:
    """Replace devpi's property."""
    inherited = vars(Config)[_PROPERTY].fget

    def offline_mode(self: Any) -> bool:
        return asked() or bool(inherited(self))

    setattr(Config, _PROPERTY, property(offline_mode))
