"""The last requests of clients, from the end of the access log. Who sent them is left out: anybody may look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.protocol import parsed
from deployer.server.nginx.statistics import is_hit
from deployer.server.web import words

TAIL = 64 * 1024
"""Bytes at the end of the log that are read."""
SHOWN = 25
_OURS = ("/+web/", "/+deployer", "/+api", "/+status")


@dataclass(frozen=True)
class Request:
    """One line of the log. ``answer``: what became of it, in a word or two."""

    time: str
    method: str
    path: str
    status: str
    answer: str
    size: str
    seconds: str


def requests(log: Path) -> list[Request] | None:
    """The last requests, the newest first; None where there is no log."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - TAIL))
            lines = stream.read(TAIL).splitlines()
    except OSError:
        return None
    found: list[Request] = []
    for line in reversed(lines):
        one = _request(line)
        if one is not None:
            found.append(one)
        if len(found) == SHOWN:
            break
    return found


def _request(line: bytes) -> Request | None:
    """None for a request of a page of ours, and for a line that was cut off."""
    try:
        told: dict[str, Any] = parsed(line)
        path = str(told["path"])
        moment = words.moment(told["time"])
        if path.startswith(_OURS) or moment is None:
            return None
        return Request(
            moment.strftime("%H:%M:%S"),
            str(told["method"])[:10],
            path[:200],
            str(told["status"]),
            _answer(told),
            words.size(int(told["bytes"])),
            f"{float(told['seconds']):.3f} s",
        )
    except (ValueError, KeyError, TypeError):
        return None


def _answer(told: dict[str, Any]) -> str:
    if told.get("held"):
        return "held back"
    return {True: "from here", False: "from the upstream", None: ""}[is_hit(told)]
