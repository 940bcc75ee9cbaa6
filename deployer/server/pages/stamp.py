"""What tells whether pages that were found at a start belong to the data, and up to which serial they are right."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from deployer.server.pages.changelog import Changelog

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Stamp:
    """A small file beside the pages. ``words``: what answers depend on besides the data."""

    def __init__(self, path: Path, changelog: Changelog, words: dict[str, Any]) -> None:
        self._path = path
        self._changelog = changelog
        # Pages are not brought to the disk one by one: after a reboot nobody knows what is in them.
        self._words = words | {"boot": _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""}

    def read(self) -> int | None:
        """The serial up to which the pages are right; None when they are of no use."""
        try:
            told = json.loads(self._path.read_bytes())
            serial = int(told["serial"])
            belongs = told == self._told(serial)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return serial if belongs else None

    def write(self, serial: int) -> None:
        """Say that the pages are right up to ``serial``. A full disk leaves the older stamp, which is right as well."""
        temporary = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(self._told(serial), stream)
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _told(self, serial: int) -> dict[str, Any]:
        # The entry itself tells a restored or replaced database from the one that the pages were made of.
        entry = hashlib.sha256(self._changelog.raw(serial)).hexdigest()
        return json.loads(json.dumps(self._words | {"serial": serial, "entry": entry}))  # type: ignore[no-any-return]
