"""Where the inventory learns what happens: from files that were kept, from devpi's events, and from the access log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.protocol import Kind
from deployer.server.devpi.installed import inside
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.items import item_of
from deployer.server.mirrors.files import Found

if TYPE_CHECKING:
    from devpi_server.keyfs import KeyChangeEvent

_FILE = re.compile(r"/([^/+]+/[^/+]+)/(\+[ef]/.+)")
_CANONICAL = re.compile(r"/([^/+]+/[^/+]+)/\+canonical/(?:packages|hosts)/.*?([^/]+)")
_PAGE = re.compile(r"/[^/+]+/[^/+]+/(?:\+simple|\+canonical/(?:simple|pypi))/([^/]+)(?:/.*)?")
_SENT = (200, 206, 304)


class Watching:
    """``files``: the root of devpi's files. ``url_of``: the upstream of a mirror, None for other indexes."""

    def __init__(self, inventory: Inventory, files: Path, url_of: Callable[[str], str | None]) -> None:
        self._inventory, self._files, self._url_of = inventory, files, url_of

    def kept(self, found: Found) -> None:
        """A file of a mirror was kept."""
        self._stored(found.mirror.name, found.path, project=found.project, origin=found.mirror.url)

    def event(self, event: KeyChangeEvent) -> None:
        """devpi has committed a change of a file: an upload, a removal, or a file of a mirror."""
        user, name, path = str(inside().key_of(event).relpath).split("/", 2)
        index = f"{user}/{name}"
        if inside().is_removal(event):  # devpi removes the file after it has committed that
            self._inventory.drop(index, path, (Kind.FILE, Kind.UPLOAD))
        else:
            self._stored(index, path, origin=self._url_of(index) or "")

    def _stored(self, index: str, path: str, *, project: str = "", origin: str) -> None:
        now = time.time()
        try:
            size = (self._files / index / path).stat().st_size
        except OSError:
            self._inventory.drop(index, path, (Kind.FILE, Kind.UPLOAD))
            return
        kind = Kind.FILE if origin else Kind.UPLOAD
        known: dict[str, Any] = {"size": size, "first": now, "last": now, "origin": origin}
        self._inventory.keep(item_of(kind, index, path, project=project, **known))

    def page(self, mirror: str, project: str, size: int, origin: str) -> None:
        """A page of an upstream was written."""
        now = time.time()
        known: dict[str, Any] = {"size": size, "first": now, "last": now, "origin": origin}
        self._inventory.keep(item_of(Kind.PAGE, mirror, project, project=project, **known))

    def companion(self, found: Found, suffix: str, size: int) -> None:
        """What belongs to a file was kept beside it."""
        now = time.time()
        known: dict[str, Any] = {"size": size, "first": now, "last": now, "origin": found.mirror.url}
        path = f"{found.path}{suffix}"
        self._inventory.keep(item_of(Kind.COMPANION, found.mirror.name, path, project=found.project, **known))


class Uses:
    """Takes the lines of the access log, as :class:`deployer.server.nginx.statistics.Statistics` reads them."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def line(self, line: dict[str, Any]) -> None:
        """Note the use of a file or a page. Raises ValueError, KeyError and TypeError for an invalid line."""
        if line["method"] != "GET" or int(line["status"]) not in _SENT:
            return
        self._of(str(line["path"]), lambda: datetime.fromisoformat(str(line["time"])).timestamp())

    def _of(self, path: str, at: Callable[[], float]) -> None:
        if found := _FILE.fullmatch(path):
            self._inventory.used(found[1], found[2], at())
        elif found := _PAGE.fullmatch(path):
            self._inventory.page_used(found[1], at())
        elif found := _CANONICAL.fullmatch(path):
            self._inventory.used_by_name(found[1], found[2], at())

    def tween(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Note the same without nginx, which writes the access log."""

        def handle(request: Any) -> Any:
            response = handler(request)
            if request.method == "GET" and response.status_code in _SENT:
                self._of(request.path_info, time.time)
            return response

        return handle

    def tick(self) -> None:
        """Write what is pending."""
        self._inventory.tick()
