"""The checkpoint of the page store: whether stored pages belong to the data, and the serial up to which they do."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from deployer.protocol import parsed
from deployer.server.pages.changelog import Changelog
from deployer.server.secret_files import write_private

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Checkpoint:
    """A small file beside the pages. ``settings``: what pages depend on besides the data."""

    def __init__(self, path: Path, changelog: Changelog, settings: dict[str, Any]) -> None:
        self._path = path
        self._changelog = changelog
        # Pages are written without fsync, so after a reboot their content is unknown.
        self._settings = settings | {"boot": _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""}

    def read(self) -> int | None:
        """The serial up to which the pages are valid; None when they must not be used."""
        try:
            found = parsed(self._path.read_bytes())
            serial = int(found["serial"])
            belongs = found == self._at(serial)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return serial if belongs else None

    def write(self, serial: int) -> None:
        """State that the pages are valid up to ``serial``. A full disk leaves the older checkpoint, which holds too."""
        with contextlib.suppress(OSError):
            write_private(self._path, json.dumps(self._at(serial)), durable=False)

    def _at(self, serial: int) -> dict[str, Any]:
        # The entry tells this database from a restored or replaced one, whose serials mean something else.
        entry = hashlib.sha256(self._changelog.raw(serial)).hexdigest()
        return json.loads(json.dumps(self._settings | {"serial": serial, "entry": entry}))  # type: ignore[no-any-return]
