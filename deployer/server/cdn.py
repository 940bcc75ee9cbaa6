"""What caches between us and our clients may keep (RFC 9111): the values of ``Cache-Control`` and ``Vary``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAME = "deployer-cdn"
NO_STORE, NO_CACHE = "no-store", "no-cache"
PRIVATE_PAGE = "no-cache, private"
OPEN_FILE = "max-age=365000000, immutable, public"
"""Of a file whose address has its hash, for everybody."""
PRIVATE_FILE = "max-age=365000000, immutable, private"
VARY = {"json": "Accept", "html": "Accept, User-Agent"}
"""By the kind of a page: what it depends on besides the encoding. Browsers get another page as HTML, not as JSON."""


@dataclass(frozen=True)
class SharedCaches:
    """``server.cdn``. ``seconds``: for which a cache of many clients may send a page without asking here.

    Registered as a devpi plugin, like push targets.
    """

    seconds: int = 0

    @property
    def pages(self) -> str:
        """``Cache-Control`` of a page that everybody may read. A client's own cache always asks."""
        return f"max-age=0, must-revalidate, s-maxage={self.seconds}" if self.seconds else NO_CACHE


def given(config: Any) -> SharedCaches:
    """What is set for this server. ``config``: devpi's."""
    found: SharedCaches | None = config.pluginmanager.get_plugin(NAME)
    return found or SharedCaches()


def for_readers(kept: str) -> str:
    """``Cache-Control`` of an answer that not everybody may read. ``kept``: as everybody would get it; may be empty."""
    if "immutable" in kept:
        return PRIVATE_FILE
    return PRIVATE_PAGE if kept and NO_STORE not in kept else NO_STORE
