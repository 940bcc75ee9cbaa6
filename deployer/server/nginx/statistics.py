"""What the access log amounts to, per index, and what upstreams were asked: counted here, kept over restarts.

nginx writes the log, this reads what is new in it every second, and moves it away when it is large. How far it was read
is kept in the same file as the counts, so no line counts twice, however the server ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pluggy import HookimplMarker

from deployer.server.secret_files import Private

hookimpl = HookimplMarker("devpiserver")

EVERY = 1.0
"""Seconds between two looks at the log."""
NAME = "deployer-statistics"
UPSTREAMS = "deployer.upstreams"
"""Where Pyramid's registry has them."""
_SENT = ("200", "206", "304")
_MOST_INDEXES = 1000
"""Anybody can ask for an index that does not exist; only what was answered counts, and no more than these."""


@dataclass
class Counts:
    """Of one index. A hit was here already; a miss had to be fetched, or its page to be made. Bytes of bodies."""

    requests: int = 0
    hits: int = 0
    misses: int = 0
    bytes_served: int = 0
    bytes_saved: int = 0

    def add(self, line: dict[str, Any]) -> None:
        self.requests += 1
        self.bytes_served += int(line["bytes"])
        match is_hit(line):
            case True:
                self.hits += 1
                self.bytes_saved += int(line["bytes"])
            case False:
                self.misses += 1
            case None:
                pass


def is_hit(line: dict[str, Any]) -> bool | None:
    """Whether a page or a file was here already; None for a request of anything else, or that got nothing."""
    path = str(line["path"])
    is_file = "/+f/" in path or "/+e/" in path
    if line["method"] not in ("GET", "HEAD") or str(line["status"]) not in _SENT:
        return None
    if line["from"] in ("file", "page"):
        return True
    if is_file:
        return not line["fetched"]
    return bool(line["kept"]) if "/+simple/" in path else None


class Statistics:
    """Counts for as long as the process lives; a plugin of devpi's, to learn of its upstreams."""

    def __init__(self, private: Private, *, max_bytes: int, max_files: int) -> None:
        """``max_bytes``, ``max_files``: when the access log is moved away, and how many of it are kept."""
        self._private = private
        self._log = private.access_log
        self._max_bytes, self._max_files = max_bytes, max_files
        self._registry: Any = {}
        self._over = threading.Event()
        known = self._read()
        self._since = str(known.get("since") or datetime.now(UTC).isoformat(timespec="seconds"))
        read = list(known.get("read", []))
        self._read_to: dict[int, int] = dict(zip(read[::2], read[1::2], strict=True))
        names = {field.name for field in fields(Counts)}
        self._indexes = {
            name: Counts(**{key: value for key, value in counts.items() if key in names})
            for name, counts in known.get("indexes", {}).items()
        }
        self._earlier: dict[str, dict[str, float]] = known.get("upstreams", {})
        self.latest = self.told()
        """What was known a moment ago, for any thread."""
        self._written: dict[str, Any] = {}

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._private.statistics.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    @hookimpl
    def devpiserver_pyramid_configure(self, pyramid_config: Any) -> None:
        self._registry = pyramid_config.registry

    def start(self) -> None:
        """Tell at once, so that whoever asks a server that is ready finds an answer; then go on counting."""
        self._once()
        threading.Thread(target=self._follow, name="statistics", daemon=True).start()

    def finish(self) -> None:
        """Count what was written last."""
        self._over.set()
        self._once()

    def _follow(self) -> None:
        while not self._over.wait(EVERY):
            self._once()

    def _once(self) -> None:
        went_over = len(self._read_to) > 1  # at the last look, nginx wrote to a new file already
        with contextlib.suppress(OSError):  # a full disk: what is not written now is written later
            self._catch_up()
            self._write()
            if self._log.stat().st_size > self._max_bytes:
                self._rotate()
            elif went_over and self._max_files == 1:
                self._numbered(1).unlink(missing_ok=True)

    def _catch_up(self) -> None:
        """Read on in both files: nginx's workers go over to a new one each in its own time."""
        seen = []
        for path in (self._log, self._numbered(1)):  # in this order on disk too, where an older release looks
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                number = os.fstat(stream.fileno()).st_ino
                if path != self._log and number not in self._read_to:
                    continue  # of before there was anything to count
                stream.seek(self._read_to.get(number, 0))
                self._count(stream)
                self._read_to[number] = stream.tell()
                seen.append(number)
        self._read_to = {number: self._read_to[number] for number in seen}

    def _count(self, stream: BinaryIO) -> None:
        """Add all whole lines, and stand before the one that is not."""
        while line := stream.readline():
            if not line.endswith(b"\n"):
                stream.seek(-len(line), os.SEEK_CUR)
                return
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._add(json.loads(line))

    def _add(self, line: dict[str, Any]) -> None:
        index = str(line["index"])
        known = index in self._indexes
        if index and (known or (int(line["status"]) < 400 and len(self._indexes) < _MOST_INDEXES)):
            self._indexes.setdefault(index, Counts()).add(line)

    def _rotate(self) -> None:
        newest = self._log.stat().st_ino
        for number in range(max(self._max_files - 1, 1), 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number - 1).replace(self._numbered(number))
        # A file that is gone now may leave its number to the one that nginx makes next, which was not read at all.
        self._read_to = {number: place for number, place in self._read_to.items() if number == newest}
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._private.nginx_pid.read_text(encoding="ascii")), signal.SIGUSR1)

    def _numbered(self, number: int) -> Path:
        return self._log.with_name(f"{self._log.name}.{number}") if number else self._log

    def told(self) -> dict[str, Any]:
        """All that is known, for whoever may read the data directory."""
        return {
            "since": self._since,
            "read": [number for place in self._read_to.items() for number in place],
            "indexes": {name: asdict(counts) for name, counts in sorted(self._indexes.items())},
            "upstreams": self._upstreams(),
        }

    def _upstreams(self) -> dict[str, dict[str, float]]:
        """Requests, failures, bytes and the slowest answer (seconds) of each, of this run and of those before it."""
        total = {origin: dict(counts) for origin, counts in self._earlier.items()}
        upstreams = self._registry.get(UPSTREAMS)
        for upstream in upstreams.known if upstreams is not None else ():
            counts = total.setdefault(upstream.origin, {"requests": 0, "failures": 0, "bytes": 0, "slowest": 0.0})
            counts["requests"] += upstream.requests
            counts["failures"] += upstream.failures
            counts["bytes"] += upstream.bytes_received
            counts["slowest"] = round(max(counts["slowest"], upstream.slowest), 3)
        return dict(sorted(total.items()))

    def _write(self) -> None:
        self.latest = self.told()
        if self.latest != self._written:
            temporary = self._private.statistics.with_suffix(".new")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(self.latest, stream)
            temporary.replace(self._private.statistics)
            self._written = self.latest
