"""``reach``: send requests to upstreams as the server would, and report how far each one got.

Only a request shows what a network lets through: with the server's certificates, proxy and resolver, and with a body
that does not fit into one packet.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

DEFAULT = "default"
"""Stands for the upstream that devpi-server mirrors by default."""
CONNECT = 5.0
"""Seconds for a connection. A host accepts one at once or, if a packet was lost, after 1 or 3 s."""
ENOUGH = 64 * 1024
"""Bytes of a body that show that large packets get through."""
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
_PROXY_SAYS_NO = 407


@dataclass
class Answer:
    """How far one request got. ``stage``, the last one: resolve, connect, tls, answer, body, done.

    ``peer``: the host and port of the connection (a proxy's, if there is one). ``skew``: seconds that this clock is
    ahead of the upstream's.
    """

    url: str
    stage: str = "resolve"
    ok: bool = False
    status: int = 0
    bytes: int = 0
    seconds: float = 0.0
    peer: str = ""
    addresses: list[str] = field(default_factory=list)
    error: str = ""
    skew: float | None = None


def reach(options: argparse.Namespace) -> int:
    """Print the report as one line of JSON. The exit code is always 0."""
    answers = [_default() if url == DEFAULT else Answer(url=url) for url in options.url]
    # In threads: a resolver has no timeout, and a late one is not waited for.
    threads = [Thread(target=_ask, args=(answer, options), daemon=True) for answer in answers if answer.url]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, started + options.timeout - time.monotonic()))
    for answer, thread in zip((answer for answer in answers if answer.url), threads, strict=True):
        if thread.is_alive():
            answer.error, answer.seconds = f"nothing within {options.timeout:g} s", options.timeout
    found = [asdict(answer) for answer in answers]
    sys.stdout.write(json.dumps({"answers": found, "resolvers": resolvers(), "mtu": mtus()}) + "\n")
    sys.stdout.flush()
    # A thread that waits for a resolver can't be ended in another way, and no clean-up is needed.
    os._exit(0)


def _ask(answer: Answer, options: argparse.Namespace) -> None:
    import httpx

    started = time.monotonic()
    try:
        # As devpi-server's client: proxies from the environment, one CA bundle.
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
        context = ssl.create_default_context(cafile=bundle) if bundle else True
        timeout = httpx.Timeout(options.timeout, connect=min(options.timeout, CONNECT))
        with httpx.Client(verify=context, timeout=timeout, follow_redirects=True) as client:
            _page(client, answer, f"{answer.url.rstrip('/')}/{options.project}/")
        answer.ok = answer.status < 500 and answer.status != _PROXY_SAYS_NO
    except httpx.TimeoutException:
        answer.error = f"nothing within {time.monotonic() - started:.0f} s"
    except (httpx.HTTPError, OSError, ValueError) as error:
        answer.error = " ".join(str(error).split()) or type(error).__name__
    answer.seconds = round(time.monotonic() - started, 3)


def _page(client: httpx.Client, answer: Answer, url: str) -> None:
    def trace(event: str, info: Mapping[str, Any]) -> None:
        _follow(answer, event, info)

    with client.stream("GET", url, headers={"Accept": _ACCEPT}, extensions={"trace": trace}) as response:
        answer.status, answer.stage = response.status_code, "body"
        answer.skew = _skew(response.headers.get("Date", ""))
        for chunk in response.iter_raw():
            answer.bytes += len(chunk)
            if answer.bytes >= ENOUGH:
                break
    answer.stage = "done"


def _follow(answer: Answer, event: str, info: Mapping[str, Any]) -> None:
    """Record an event of httpcore (its documentation, "trace")."""
    _, _, step = event.partition(".")
    if step == "connect_tcp.started":
        host, port = info["host"], info["port"]
        answer.stage, answer.peer = "resolve", f"{host}:{port}"
        # The connection resolves the name again; here it tells an unknown name from a silent host.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answer.addresses = sorted({str(address[0]) for *_, address in found})
        answer.stage = "connect"
    elif step == "start_tls.started":
        answer.stage = "tls"
    elif step == "send_request_headers.started":
        answer.stage = "answer"


def _skew(date: str) -> float | None:
    try:
        there = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return round((datetime.now(UTC) - there.replace(tzinfo=there.tzinfo or UTC)).total_seconds(), 1)


def _default() -> Answer:
    from deployer.server.devpi.installed import default_mirror_url

    try:
        url = default_mirror_url()
        return Answer(url=url) if url else Answer(url="", error="this devpi-server names no default upstream")
    except ImportError:
        return Answer(url="", error="devpi-server is not installed here, so its default upstream is not known")


def resolvers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The configured name servers (resolv.conf(5))."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]


def mtus(path: Path = Path("/sys/class/net")) -> dict[str, int]:
    """The MTU of each interface except loopback, in bytes."""
    found = {}
    for interface in sorted(path.glob("*")):
        try:
            if interface.name != "lo":
                found[interface.name] = int((interface / "mtu").read_text())
        except (OSError, ValueError):
            continue
    return found
