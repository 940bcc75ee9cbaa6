"""The numbers for Prometheus, on an address of their own: clients need not see what others install."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from deployer.protocol import Counted, ExitCode, MemberStatus, QuotaNow, Refusal, ThreadsNow
from deployer.server.histogram import Histogram
from deployer.server.nginx.exposition import TYPE, Metric, Samples, text
from deployer.server.nginx.latency import Latency
from deployer.server.nginx.own_process import OwnProcess

Item = TypeVar("Item")

MOST_UPSTREAMS = 100
"""Upstreams that are listed, those with the most requests: the hosts of files are chosen by upstreams."""

OF_INDEXES: Mapping[str, Metric] = {
    "requests": Metric("deployer_requests_total", "counter", "Requests that named the index.", ("index",)),
    "hits": Metric("deployer_hits_total", "counter", "Pages and files that were stored.", ("index",)),
    "misses": Metric("deployer_misses_total", "counter", "Pages and files that were fetched or made.", ("index",)),
    "bytes_served": Metric("deployer_served_bytes_total", "counter", "Bytes of bodies sent to clients.", ("index",)),
    "bytes_saved": Metric(
        "deployer_saved_bytes_total", "counter", "Bytes of stored pages and files sent to clients.", ("index",)
    ),
}
REFUSED = Metric("deployer_refused_total", "counter", "Files that a rule of the mirror held back.", ("index", "rule"))
SECONDS = Metric(
    "deployer_request_duration_seconds",
    "histogram",
    "Time from the first byte of a request to the last byte of its answer; failed requests are left out.",
    ("kind", "source"),
)
ANSWERS = Metric("deployer_responses_total", "counter", "Answers to clients by HTTP status.", ("kind", "code"))
OF_UPSTREAMS: Mapping[str, Metric] = {
    "requests": Metric("deployer_upstream_requests_total", "counter", "Requests to the upstream.", ("upstream",)),
    "failures": Metric(
        "deployer_upstream_failures_total", "counter", "Requests to the upstream without an answer.", ("upstream",)
    ),
    "bytes": Metric(
        "deployer_upstream_received_bytes_total", "counter", "Bytes of bodies received from it.", ("upstream",)
    ),
    "slowest": Metric(
        "deployer_upstream_slowest_seconds", "gauge", "Longest time until an answer began, ever.", ("upstream",)
    ),
}
UPSTREAM_UP = Metric(
    "deployer_upstream_up", "gauge", "Whether the last request was answered: 1, or 0 if it failed.", ("upstream",)
)
UPSTREAM_ASKING = Metric(
    "deployer_upstream_requests_in_progress", "gauge", "Requests to the upstream under way.", ("upstream",)
)
UPSTREAM_SECONDS = Metric(
    "deployer_upstream_response_seconds", "histogram", "Time until an answer of the upstream began.", ("upstream",)
)
GAUGES: Mapping[str, Metric] = {
    "writable": Metric("deployer_writable", "gauge", "Whether the server can write its data: 1 or 0."),
    "offline": Metric("deployer_offline", "gauge", "Whether no upstream is asked: 1 or 0."),
    "cache": Metric("deployer_cache_bytes", "gauge", "Bytes of cached files and pages."),
    "budget": Metric("deployer_cache_budget_bytes", "gauge", "Value of server.budget; absent without one."),
    "database": Metric("deployer_database_bytes", "gauge", "Size of devpi's database."),
    "disk_free": Metric("deployer_disk_free_bytes", "gauge", "Bytes of the data's disk that may still be written."),
    "disk_size": Metric("deployer_disk_size_bytes", "gauge", "Size of the data's disk."),
    "backup": Metric(
        "deployer_backup_completed_timestamp_seconds", "gauge", "When the last backup was completed; absent before."
    ),
    "certificate": Metric(
        "deployer_certificate_expiry_timestamp_seconds", "gauge", "When the certificate expires; absent without HTTPS."
    ),
    "synced": Metric(
        "deployer_member_synced", "gauge", "Whether this member of a cluster serves, and lacks nothing: 1 or 0."
    ),
    "lag": Metric("deployer_replica_lag_seconds", "gauge", "Time since when this replica may lack something."),
    "missing": Metric(
        "deployer_replica_missing_files", "gauge", "Files that this replica is to fetch from its primary."
    ),
    "threads": Metric("deployer_threads", "gauge", "Threads that answer requests."),
    "busy": Metric("deployer_threads_busy", "gauge", "Threads that answer a request now."),
    "queued": Metric("deployer_requests_queued", "gauge", "Requests that wait for a thread."),
}
QUOTA = Metric("deployer_index_quota_bytes", "gauge", "Quota of uploads, of indexes that have one.", ("index",))
UPLOADED = Metric("deployer_index_uploaded_bytes", "gauge", "Bytes of uploads, of indexes with a quota.", ("index",))
BUILD = Metric("deployer_build_info", "gauge", "Always 1; the versions are labels.", ("version", "devpi", "front"))
PROCESS: Mapping[str, Metric] = {
    "cpu": Metric("process_cpu_seconds_total", "counter", "Processor time of the server, without nginx."),
    "memory": Metric("process_resident_memory_bytes", "gauge", "Resident memory of the server, without nginx."),
    "open_files": Metric("process_open_fds", "gauge", "Open file descriptors of the server."),
    "most_files": Metric("process_max_fds", "gauge", "Limit of open file descriptors."),
    "started": Metric("process_start_time_seconds", "gauge", "When the server began, since the epoch."),
}

METRICS = (
    BUILD,
    *OF_INDEXES.values(),
    REFUSED,
    SECONDS,
    ANSWERS,
    *OF_UPSTREAMS.values(),
    UPSTREAM_UP,
    UPSTREAM_ASKING,
    UPSTREAM_SECONDS,
    QUOTA,
    UPLOADED,
    *GAUGES.values(),
    *PROCESS.values(),
)
"""All of them, in the order of the text."""


@dataclass(frozen=True, kw_only=True)
class UpstreamMeasured:
    """One upstream now. ``up``: its last request was answered. ``seconds``: until its answers began."""

    origin: str
    requests: int
    up: bool
    asking: int
    seconds: Histogram


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known besides the access log.

    ``build``: versions of deployer and of devpi-server, and the front. ``cache``: bytes, and the budget. ``database``,
    ``free``, ``size``: bytes. ``backup``, ``certificate``: seconds since the epoch. ``quotas``: by index.
    ``member``: None for a single server.
    """

    build: tuple[str, str, str]
    upstreams: tuple[UpstreamMeasured, ...] = ()
    writable: bool = True
    offline: bool = False
    cache: tuple[int, int | None] = (0, None)
    database: int = 0
    free: int = 0
    size: int = 0
    backup: float | None = None
    certificate: float | None = None
    quotas: Mapping[str, QuotaNow] = field(default_factory=dict)
    threads: ThreadsNow = field(default_factory=lambda: ThreadsNow(total=0, busy=0, queued=0))
    member: MemberStatus | None = None

    @property
    def gauges(self) -> Mapping[str, float | None]:
        """By the key in :data:`GAUGES`."""
        return {
            "writable": int(self.writable),
            "offline": int(self.offline),
            "cache": self.cache[0],
            "budget": self.cache[1],
            "database": self.database,
            "disk_free": self.free,
            "disk_size": self.size,
            "backup": self.backup,
            "certificate": self.certificate,
            **self._of_member,
            "threads": self.threads["total"],
            "busy": self.threads["busy"],
            "queued": self.threads["queued"],
        }

    @property
    def _of_member(self) -> Mapping[str, float | None]:
        if self.member is None:
            return {}
        synced = {"synced": int(self.member.synced and not self.member.errors)}
        if self.member.role != "replica":
            return synced
        return {**synced, "lag": self.member.lag_seconds, "missing": self.member.files_missing}


def samples(
    counted: Counted, latency: Latency, measured: Measured | None, process: Mapping[str, float]
) -> Mapping[Metric, Samples]:
    """The values of all metrics. ``measured`` is None until the server is ready."""
    indexes = counted["indexes"]
    upstreams = dict(_most(counted["upstreams"].items(), requests=lambda one: one[1]["requests"]))
    found: dict[Metric, Samples] = {metric: {} for metric in METRICS}
    found |= {metric: _of(indexes, key) for key, metric in OF_INDEXES.items()}
    found[REFUSED] = {
        (index, rule): number for index, counts in indexes.items() for rule, number in counts.get("refused", {}).items()
    }
    found |= {SECONDS: latency.seconds, ANSWERS: latency.answers}
    found |= {metric: _of(upstreams, key) for key, metric in OF_UPSTREAMS.items()}
    found |= {PROCESS[key]: {(): value} for key, value in process.items()}
    if measured is not None:
        now = _most(measured.upstreams, requests=lambda one: one.requests)
        found[BUILD] = {measured.build: 1}
        found[UPSTREAM_UP] = {(one.origin,): int(one.up) for one in now}
        found[UPSTREAM_ASKING] = {(one.origin,): one.asking for one in now}
        found[UPSTREAM_SECONDS] = {(one.origin,): one.seconds for one in now}
        found[UPLOADED] = {(index,): one["used"] for index, one in measured.quotas.items()}
        found[QUOTA] = {(index,): one["limit"] for index, one in measured.quotas.items()}
        found |= {GAUGES[key]: {(): value} for key, value in measured.gauges.items() if value is not None}
    return found


def _of(counted: Mapping[str, Any], key: str) -> Samples:
    return {(name,): counts[key] for name, counts in counted.items()}


def _most(upstreams: Iterable[Item], *, requests: Callable[[Item], float]) -> list[Item]:
    return sorted(upstreams, key=requests, reverse=True)[:MOST_UPSTREAMS]


class Exporter:
    """Answers Prometheus. It is a devpi plugin, to get ``measure`` once the server is assembled."""

    def __init__(self, counted: Callable[[], Counted]) -> None:
        self._counted, self._process = counted, OwnProcess()
        self.latency = Latency()
        self.measure: Callable[[], Measured | None] = lambda: None

    @property
    def text(self) -> str:
        """All metrics, as Prometheus reads them."""
        return text(samples(self._counted(), self.latency, self.measure(), self._process.values()))

    def serve(self, address: str) -> None:
        """Answer ``/metrics`` at ``HOST:PORT`` until the process ends. Raises Refusal when the address can't be
        used."""
        host, _, port = address.rpartition(":")
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds until an idle client is cut off

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                body = exporter.text.encode()
                self.send_response(200)
                self.send_header("Content-Type", TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                """No log line for each scrape."""

        try:
            server = ThreadingHTTPServer((host, int(port)), Handler)
        except (OSError, ValueError) as error:
            raise Refusal(
                f"can't serve metrics at {address}: {error}", hint="choose another address", code=ExitCode.CONFLICT
            ) from None
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
