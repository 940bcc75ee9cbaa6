"""What the upstreams of mirrors want to see: read from a file of our own, so that it is in nothing that devpi shows.

devpi keeps credentials in a mirror's address, which it tells every reader, logs and exports. Its own hook for plugins
is asked only after a 401 or 403, and keeps what it was told until that fails: an upstream that says 404 to strangers
never gets there, and a new secret costs a failure. So what a mirror sends is answered here, from the first request on,
and read again when the file was replaced. To whom it may go, ``indexes.may_get`` decides for each single request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog

from deployer.server.devpi.installed import inside
from deployer.server.refusal import unfit

_Stamp = tuple[int, int, int]


class Credentials:
    """The file: a JSON object of mirror addresses and the Authorization header of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._headers: dict[str, str] = {}
        self.on_change: Callable[[frozenset[str]], None] = lambda urls: None
        """Told of the addresses whose credentials are new, also of those that lost theirs."""

    def header(self, url: str) -> str | None:
        """What is to be sent to the upstream at ``url``; None when nothing is known of it."""
        return self.look().get(url.rstrip("/"))

    def look(self) -> dict[str, str]:
        """All that is known, as new as the file."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return self._headers
        with self._lock:
            if stamp != self._stamp:
                before, self._headers, self._stamp = self._headers, self._read(), stamp
                changed = {url for url, _ in before.items() ^ self._headers.items()}
                if changed:
                    self.on_change(frozenset(changed))
            return self._headers

    def _stamp_now(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, str]:
        try:
            return parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            # Without them the upstream refuses: nothing is served that should not be.
            threadlog.error("the credentials of mirrors can't be read: %s", type(error).__name__)
            return {}


def parse(text: str) -> dict[str, str]:
    """Addresses, without a slash at the end, and headers. Raises ValueError, with nothing of ``text`` in it."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(found, dict) or not all(
        isinstance(value, str) and value.isprintable() for value in found.values()
    ):
        raise ValueError("not an object of addresses and headers")
    return {str(url).rstrip("/"): value for url, value in found.items()}


def install(known: Credentials) -> None:
    """Have every mirror send what ``known`` has for it. Raises Refusal when devpi does it in another way."""
    mirror, name, address = inside().MirrorStage, inside().AUTHORIZATION, inside().address
    own = getattr(mirror, name, None)
    if not isinstance(own, property) or own.fget is None:
        raise unfit("gives credentials to its upstreams in another way")
    inherited = own.fget

    def header(self: Any) -> str | None:
        return known.header(address(self)) or inherited(self)

    setattr(mirror, name, property(header))
