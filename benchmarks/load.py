"""Requests a second: by ``wrk`` where it is installed, else by a small generator of our own, which is slower."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
_UNITS = {"B": 1e-6, "KB": 1.024e-3, "MB": 1.048576, "GB": 1073.741824}


@dataclass(frozen=True, kw_only=True)
class Rate:
    requests: float
    """A second."""
    megabytes: float
    """A second, headers included."""
    done: int
    """Requests that were answered."""
    failed: int
    """Answers other than 2xx and 3xx, and connections that broke."""


def name() -> str:
    return (
        "wrk" if shutil.which("wrk") else "a generator in Python (wrk is not installed: small answers are understated)"
    )


def rate(url: str, *, connections: int, seconds: float, headers: Mapping[str, str] | None = None) -> Rate:
    """Ask for ``url`` again and again on ``connections`` kept open, for ``seconds``."""
    if shutil.which("wrk"):
        return _wrk(url, connections, seconds, headers or {})
    return _own(url, connections, seconds, headers or {})


def _wrk(url: str, connections: int, seconds: float, headers: Mapping[str, str]) -> Rate:
    words = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
    for key, value in headers.items():
        words += ["-H", f"{key}: {value}"]
    text = subprocess.run([*words, url], check=True, capture_output=True, text=True).stdout
    requests = re.search(r"Requests/sec:\s+([\d.]+)", text)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", text)
    done = re.search(r"(\d+) requests in", text)
    if requests is None or transfer is None or done is None:
        raise SystemExit(f"wrk says what is not understood:\n{text}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Rate(
        requests=float(requests[1]),
        megabytes=float(transfer[1]) * _UNITS[transfer[2]],
        done=int(done[1]),
        failed=failed + (int(bad[1]) if bad else 0),
    )


def _own(url: str, connections: int, seconds: float, headers: Mapping[str, str]) -> Rate:
    parts = urlsplit(url)
    counts: list[tuple[int, int, int]] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        done = size = failed = 0
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        while time.monotonic() < end:
            try:
                connection.request("GET", parts.path, headers=dict(headers))
                response = connection.getresponse()
                size += len(response.read())
                done += 1
                failed += response.status >= 400
            except (OSError, http.client.HTTPException):
                failed += 1
                connection.close()
        connection.close()
        counts.append((done, size, failed))

    started = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    done, size, failed = (sum(column) for column in zip(*counts, strict=True))
    return Rate(requests=done / took, megabytes=size / 1e6 / took, done=done, failed=failed)
