"""Counts per index (from nginx's access log) and per upstream, kept over restarts.

Every second the new lines of the log are counted, and a large log is rotated. The position in the log is stored in the
same file as the counts, so no line counts twice, however the server ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pluggy import HookimplMarker

from deployer.protocol import Counted, IndexCounts, UpstreamCounts, parsed
from deployer.server.secret_files import Private, write_private

hookimpl = HookimplMarker("devpiserver")

EVERY = 1.0
"""Seconds between two reads of the log."""
NAME = "deployer-statistics"
METRICS = "deployer-metrics"
"""The name of the exporter for Prometheus as a devpi plugin, which is imported when it is wanted."""
UPSTREAMS = "deployer.upstreams"
"""Key of the upstreams in Pyramid's registry."""
_FILES = ("/+f/", "/+e/", "/+canonical/packages/", "/+canonical/hosts/")
_PAGES = ("/+simple/", "/+canonical/simple/", "/+canonical/pypi/")
_SENT = ("200", "206", "304")
_MOST_INDEXES = 1000
"""Limit of counted indexes: anybody can ask for one that does not exist. A new index counts from its first answer."""

_MOST_RULES = 20


@dataclass
class Counts:
    """Counts of one index. Hit: the page or file was stored. Miss: it was fetched or made. Bytes of bodies.

    ``refused``: files that a rule of the mirror held back, by rule.
    """

    requests: int = 0
    hits: int = 0
    misses: int = 0
    bytes_served: int = 0
    bytes_saved: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def json(self) -> IndexCounts:
        return IndexCounts(
            requests=self.requests,
            hits=self.hits,
            misses=self.misses,
            bytes_served=self.bytes_served,
            bytes_saved=self.bytes_saved,
            refused=dict(sorted(self.refused.items())),
        )

    def add(self, line: dict[str, Any]) -> None:
        self.requests += 1
        self.bytes_served += int(line["bytes"])
        if (rule := line.get("held")) and (rule in self.refused or len(self.refused) < _MOST_RULES):
            self.refused[rule] = self.refused.get(rule, 0) + 1
        match is_hit(line):
            case True:
                self.hits += 1
                self.bytes_saved += int(line["bytes"])
            case False:
                self.misses += 1
            case None:
                pass


def kind_of(line: Mapping[str, Any]) -> str:
    """What a request was for: ``page``, ``file``, ``write`` for any other method than GET and HEAD, or ``other``."""
    path = str(line["path"])
    if line["method"] not in ("GET", "HEAD"):
        return "write"
    if line["from"] in ("file", "page"):
        return str(line["from"])
    if any(view in path for view in _FILES):
        return "file"
    return "page" if any(view in path for view in _PAGES) else "other"


def is_hit(line: Mapping[str, Any]) -> bool | None:
    """Whether a page or file was stored; None for other requests, and for failed ones."""
    kind = kind_of(line)
    if kind not in ("file", "page") or str(line["status"]) not in _SENT:
        return None
    if line["from"] in ("file", "page"):
        return True
    return not line["fetched"] if kind == "file" else bool(line["kept"])


class Listener(Protocol):
    """Somebody else who counts: the access log is read once."""

    def line(self, line: dict[str, Any]) -> None:
        """Take one line. May raise ValueError, KeyError and TypeError for an invalid one."""

    def tick(self) -> None:
        """Write what there is to write; called about once a second, and at the end."""


class Statistics:
    """The counter, until the process ends. It is a devpi plugin, to get Pyramid's registry with the upstreams."""

    def __init__(self, private: Private, *, max_bytes: int, max_files: int, listeners: Sequence[Listener] = ()) -> None:
        """``max_bytes``: size at which the access log is rotated. ``max_files``: number of logs that are kept."""
        self._private = private
        self._listeners = listeners
        self._log = private.access_log
        self._max_bytes, self._max_files = max_bytes, max_files
        self._registry: Any = {}
        self._over = threading.Event()
        known = self._read()
        self._since = str(known.get("since") or datetime.now(UTC).isoformat(timespec="seconds"))
        read = list(known.get("read", []))
        self._read_to: dict[int, int] = dict(zip(read[::2], read[1::2], strict=True))
        names = {one.name for one in fields(Counts)}
        self._indexes = {
            name: Counts(**{key: value for key, value in counts.items() if key in names})
            for name, counts in known.get("indexes", {}).items()
        }
        self._earlier: dict[str, UpstreamCounts] = known.get("upstreams", {})
        self.latest = self.counted()
        """The counts a moment ago; any thread may read them."""
        self._written: Counted | None = None

    def _read(self) -> dict[str, Any]:
        try:
            known = parsed(self._private.statistics.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    @hookimpl
    def devpiserver_pyramid_configure(self, pyramid_config: Any) -> None:
        self._registry = pyramid_config.registry
        self._registry[NAME] = self

    def start(self) -> None:
        """Write the file at once, so that it exists when the server is ready; then count in a thread."""
        self._once()
        threading.Thread(target=self._follow, name="statistics", daemon=True).start()

    def finish(self) -> None:
        """Count the last lines."""
        self._over.set()
        self._once()

    def _follow(self) -> None:
        while not self._over.wait(EVERY):
            self._once()

    def _once(self) -> None:
        went_over = len(self._read_to) > 1  # nginx already wrote to a new file at the last read
        with contextlib.suppress(OSError):  # a full disk: written later
            self._catch_up()
            self._write()
            if self._log.stat().st_size > self._max_bytes:
                self._rotate()
            elif went_over and self._max_files == 1:
                self._numbered(1).unlink(missing_ok=True)
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.tick()

    def _catch_up(self) -> None:
        """Read on in both files: each of nginx's workers switches to a new file in its own time."""
        seen = []
        for path in (self._log, self._numbered(1)):  # stored in this order, which an older release expects
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                number = os.fstat(stream.fileno()).st_ino
                if path != self._log and number not in self._read_to:
                    continue  # older than the first count
                stream.seek(self._read_to.get(number, 0))
                self._count(stream)
                self._read_to[number] = stream.tell()
                seen.append(number)
        self._read_to = {number: self._read_to[number] for number in seen}

    def _count(self, stream: BinaryIO) -> None:
        """Count all complete lines, and stay before an incomplete one."""
        while line := stream.readline():
            if not line.endswith(b"\n"):
                stream.seek(-len(line), os.SEEK_CUR)
                return
            with contextlib.suppress(ValueError, KeyError, TypeError):
                read = parsed(line)
                self._add(read)
                for listener in self._listeners:
                    listener.line(read)

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
        # The next log may get the inode number of a removed one; it must be read from its beginning.
        self._read_to = {number: place for number, place in self._read_to.items() if number == newest}
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._private.nginx_pid.read_text(encoding="ascii")), signal.SIGUSR1)

    def _numbered(self, number: int) -> Path:
        return self._log.with_name(f"{self._log.name}.{number}") if number else self._log

    def counted(self) -> Counted:
        """All counts."""
        return {
            "since": self._since,
            "read": [number for place in self._read_to.items() for number in place],
            "indexes": {name: counts.json for name, counts in sorted(self._indexes.items())},
            "upstreams": self._upstreams(),
        }

    def _upstreams(self) -> dict[str, UpstreamCounts]:
        """The counts of each upstream, of this run and of earlier ones."""
        total = {origin: counts.copy() for origin, counts in self._earlier.items()}
        upstreams = self._registry.get(UPSTREAMS)
        for upstream in upstreams.known if upstreams is not None else ():
            counts = total.setdefault(upstream.origin, UpstreamCounts(requests=0, failures=0, bytes=0, slowest=0.0))
            counts["requests"] += upstream.requests
            counts["failures"] += upstream.failures
            counts["bytes"] += upstream.bytes_received
            counts["slowest"] = round(max(counts["slowest"], upstream.slowest), 3)
        return dict(sorted(total.items()))

    def _write(self) -> None:
        self.latest = self.counted()
        if self.latest != self._written:
            write_private(self._private.statistics, json.dumps(self.latest), durable=False)
            self._written = self.latest
