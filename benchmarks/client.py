"""Installing as a user does: ``uv pip install --no-cache`` into an empty directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.bench import Bench
from benchmarks.load import JSON
from benchmarks.peers.base import LOCAL

PATIENCE = 60.0
"""Seconds after which an installer counts as failed."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    seconds: float
    """Until the last was done."""
    failed: int
    said: str
    """What the first that failed had to say."""


def install(bench: Bench, simple_url: str, wanted: Sequence[str], *, clients: int = 1) -> Installed:
    """Install ``wanted`` from ``simple_url``, ``clients`` times at once, each into a directory of its own."""
    room = Path(tempfile.mkdtemp(prefix="installed-", dir=bench.work))
    words = [bench.tools.program("uv"), "pip", "install", "--quiet", "--no-cache", "--only-binary", ":all:"]
    words += ["--python", sys.executable, "--default-index", simple_url]
    started = time.perf_counter()
    running = []
    for number in range(clients):
        output = (room / f"{number}.log").open("wb")
        env = {**bench.tools.env, "TMPDIR": str(room)}
        running.append(
            subprocess.Popen([*words, "--target", room / str(number), *wanted], env=env, stdout=output, stderr=output)
        )
        output.close()
    failures = [number for number, one in enumerate(running) if _code(one, started + PATIENCE)]
    seconds = time.perf_counter() - started
    said = (room / f"{failures[0]}.log").read_text()[-2000:] if failures else ""
    shutil.rmtree(room)
    return Installed(seconds=seconds, failed=len(failures), said=said)


def _code(process: subprocess.Popen[bytes], until: float) -> int:
    try:
        return process.wait(max(0.0, until - time.perf_counter()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -1


def install_well(bench: Bench, simple_url: str, wanted: Sequence[str]) -> float:
    """Seconds of an installation that must not fail; without it there is nothing to compare."""
    done = install(bench, simple_url, wanted)
    if done.failed:
        raise SystemExit(f"uv can't install from {simple_url}:\n{done.said}")
    return done.seconds


def page(simple_url: str, project: str) -> httpx.Response:
    """The page of ``project``, as JSON where the server has that. Raises httpx.HTTPError."""
    accept = {"Accept": f"{JSON['Accept']}, text/html;q=0.1"}
    return httpx.get(f"{simple_url}{project}/", headers=accept, timeout=120, **LOCAL).raise_for_status()


def file_url(simple_url: str, project: str, filename: str) -> str:
    """Where the page says that ``filename`` is."""
    import re

    answer = page(simple_url, project)
    if "json" in answer.headers["content-type"]:
        links = [file["url"] for file in answer.json()["files"]]
    else:
        links = re.findall(r'href="([^"]+)"', answer.text)
    link = next(link for link in links if f"/{link}".partition("#")[0].endswith(f"/{filename}"))
    return str(answer.url.join(link.partition("#")[0]))
