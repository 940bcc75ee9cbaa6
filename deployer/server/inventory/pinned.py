"""The files that are never pruned: those that ``warm`` of the profile lists, as ``deployer warm`` found them.

``<serverdir>/.deployer/pinned.json``: ``{"files": ["USER/INDEX/+f/…", …]}``. It is read again when it has changed.
"""

from __future__ import annotations

import threading
from pathlib import Path

from deployer.protocol import COMPANIONS, parsed


class Pinned:
    """The list. Any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] = (0, 0)
        self._files: frozenset[str] = frozenset()

    def refresh(self) -> None:
        """Read the file if it has changed; a damaged one changes nothing."""
        with self._lock:
            try:
                status = self._path.stat()
                seen = (status.st_mtime_ns, status.st_ino)
                if seen == self._seen:
                    return
                found = parsed(self._path.read_bytes())["files"]
                self._files = frozenset(one for one in found if isinstance(one, str))
                self._seen = seen
            except FileNotFoundError:
                self._files, self._seen = frozenset(), (0, 0)
            except (OSError, ValueError, KeyError, TypeError):
                return

    def has(self, index: str, path: str) -> bool:
        """Whether the file at ``path`` below ``index`` is listed, or the file that it stands beside."""
        of = next((path.removesuffix(suffix) for suffix in COMPANIONS if path.endswith(suffix)), path)
        return f"{index}/{of}" in self._files
