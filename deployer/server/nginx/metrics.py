"""The counts for Prometheus, on an address of their own: clients need not see what others install."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployer.protocol import Counted, ExitCode, Refusal

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OF_INDEXES = {
    "requests": ("deployer_requests_total", "Requests that named the index."),
    "hits": ("deployer_hits_total", "Pages and files that were stored."),
    "misses": ("deployer_misses_total", "Pages and files that had to be fetched or made."),
    "bytes_served": ("deployer_served_bytes_total", "Bytes of bodies sent to clients."),
    "bytes_saved": ("deployer_saved_bytes_total", "Bytes of stored pages and files sent to clients."),
}
_OF_UPSTREAMS = {
    "requests": ("deployer_upstream_requests_total", "Requests to the upstream."),
    "failures": ("deployer_upstream_failures_total", "Requests to the upstream without an answer."),
    "bytes": ("deployer_upstream_received_bytes_total", "Bytes of bodies received from the upstream."),
    "slowest": ("deployer_upstream_slowest_seconds", "Longest time until an answer began."),
}


def text(counted: Counted) -> str:
    """The counts in the text format 0.0.4."""
    lines = [
        *_lines(counted["indexes"], _OF_INDEXES, "index"),
        *_refused(counted["indexes"]),
        *_lines(counted["upstreams"], _OF_UPSTREAMS, "upstream"),
    ]
    return "".join(f"{line}\n" for line in lines)


def _lines(counted: Mapping[str, Any], names: Mapping[str, tuple[str, str]], label: str) -> Iterator[str]:
    for key, (name, about) in names.items():
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
        for of, counts in counted.items():
            yield f'{name}{{{label}="{_quoted(of)}"}} {counts[key]}'


def _refused(indexes: Mapping[str, Any]) -> Iterator[str]:
    yield "# HELP deployer_refused_total Files that a rule of the mirror held back."
    yield "# TYPE deployer_refused_total counter"
    for index, counts in indexes.items():
        for rule, number in counts.get("refused", {}).items():
            yield f'deployer_refused_total{{index="{_quoted(index)}",rule="{_quoted(rule)}"}} {number}'


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def serve(address: str, counted: Callable[[], Counted]) -> None:
    """Answer ``/metrics`` at ``HOST:PORT`` until the process ends. Raises Refusal when the address can't be used."""
    host, _, port = address.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds until an idle client is cut off

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = text(counted()).encode()
            self.send_response(200)
            self.send_header("Content-Type", _TYPE)
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
