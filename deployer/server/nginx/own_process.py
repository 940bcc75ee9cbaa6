"""What Prometheus's client libraries tell of their own process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Mapping
from pathlib import Path

_FILES, _MEMORY = Path("/proc/self/fd"), Path("/proc/self/statm")


class OwnProcess:
    """This process; it begins when this is made. What the system does not tell is left out."""

    def __init__(self) -> None:
        self._started = time.time()

    def values(self) -> Mapping[str, float]:
        """Seconds of processor time, bytes of memory, open files and their limit, and the start."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        found: dict[str, float] = {
            "cpu": round(time.process_time(), 3),
            "most_files": float("inf") if limit == resource.RLIM_INFINITY else limit,
            "started": round(self._started, 3),
        }
        with contextlib.suppress(OSError):  # no /proc: not Linux
            pages = int(_MEMORY.read_text(encoding="ascii").split()[1])
            found |= {"memory": pages * resource.getpagesize(), "open_files": sum(1 for _ in _FILES.iterdir())}
        return found
