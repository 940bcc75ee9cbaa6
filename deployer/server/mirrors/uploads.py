"""What a page says of uploaded files besides what devpi writes: size, time, and whether they have metadata."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import Any

from deployer.server.devpi.installed import inside
from deployer.server.mirrors import wheel_metadata
from deployer.server.mirrors.wheel_metadata import NoMetadata

REMEMBERED = 20_000
"""Wheels of which it is remembered whether they have metadata."""


class Uploads:
    """``files``: the root of devpi's files. Paths are below it: ``user/index/+f/…``."""

    def __init__(self, xom: Any, files: Path) -> None:
        self._xom, self._files = xom, files
        self._known: OrderedDict[str, bool] = OrderedDict()
        self._lock = Lock()

    def facts(self, paths: Collection[str]) -> dict[str, tuple[int | None, str | None]]:
        """Size in bytes and time of upload of each file, by path."""
        return inside().facts(self._xom, paths) if paths else {}

    def has_metadata(self, path: str) -> bool:
        """Whether the wheel's metadata can be read: they are promised to clients, and devpi reads them when asked."""
        with self._lock:
            if path in self._known:
                return self._known[path]
        found = self._look(path)
        with self._lock:
            self._known[path] = found
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _look(self, path: str) -> bool:
        try:
            with (self._files / path).open("rb") as wheel:
                wheel_metadata.metadata_of(wheel, path.rpartition("/")[2])
        except (NoMetadata, OSError):
            return False
        return True
