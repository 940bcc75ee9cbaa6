"""What was counted, as Prometheus reads it, on an address of its own: whoever installs need not see what others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployer.server.refusal import TAKEN, Refusal

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OF_INDEXES = {
    "requests": ("deployer_requests_total", "Requests that named the index."),
    "hits": ("deployer_hits_total", "Pages and files that were here already."),
    "misses": ("deployer_misses_total", "Pages and files that had to be fetched or made."),
    "bytes_served": ("deployer_served_bytes_total", "Bytes of bodies that clients got."),
    "bytes_saved": ("deployer_saved_bytes_total", "Bytes of those that were here already."),
}
_OF_UPSTREAMS = {
    "requests": ("deployer_upstream_requests_total", "Requests to the upstream."),
    "failures": ("deployer_upstream_failures_total", "Those that got no answer."),
    "bytes": ("deployer_upstream_received_bytes_total", "Bytes of bodies that came from it."),
    "slowest": ("deployer_upstream_slowest_seconds", "The longest that an answer took to begin."),
}


def text(told: Mapping[str, Any]) -> str:
    """The counts of :meth:`Statistics.told` in the text format 0.0.4."""
    lines = [*_lines(told["indexes"], _OF_INDEXES, "index"), *_lines(told["upstreams"], _OF_UPSTREAMS, "upstream")]
    return "".join(f"{line}\n" for line in lines)


def _lines(counted: Mapping[str, Any], names: Mapping[str, tuple[str, str]], label: str) -> Iterator[str]:
    for key, (name, about) in names.items():
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
        for of, counts in counted.items():
            quoted = of.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            yield f'{name}{{{label}="{quoted}"}} {counts[key]}'


def serve(address: str, told: Callable[[], Mapping[str, Any]]) -> None:
    """Answer ``/metrics`` at ``HOST:PORT`` for as long as the process lives. Raises Refusal when it is taken."""
    host, _, port = address.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; who says nothing goes

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = text(told()).encode()
            self.send_response(200)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Nobody wants a line for each scrape."""

    try:
        server = ThreadingHTTPServer((host, int(port)), Handler)
    except (OSError, ValueError) as error:
        raise Refusal(f"metrics can't be served at {address}: {error}", cure="choose another", code=TAKEN) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
