"""Tables of a CI job: a restored cache of the index beside pip's own restored one, and how soon an index is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.deployment import KEPT
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.devpi import PlainDevpi

NOTHING, PIP, OURS = "no cache", "pip's cache, restored", "`cache restore`, the whole job"
SECONDS, STORED = "s", "stored, MB"
BARE, FRESH, UP = "devpi", "devpi, from nothing", "`up --profile ci`"
READY, GONE = "ready, s", "taken down, s"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a CI with a home of its own; ``store``: what is kept between jobs."""

    bench: Bench
    store: Path
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="deployer-job-")))

    @property
    def env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        return {**kept, "HOME": str(self.home), "DEPLOYER_NAME": self.home.name}

    def deployer(self, *words: str) -> str:
        """Standard output of one command. Raises SystemExit."""
        done = subprocess.run(
            [self.bench.tools.deployer, *words], env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"deployer {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def pip(self, index: str, *words: str) -> None:
        quiet = ["--isolated", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:"]
        host = ["--trusted-host", urlsplit(index).netloc]  # without it pip caches nothing that came without TLS
        argv = [sys.executable, "-m", "pip", "install", *quiet, *host, "--index-url", index, *words]
        wanted = self.bench.index.wanted(*GROUPS)
        subprocess.run([*argv, "--target", str(self.home / "target"), *wanted], env=self.env, check=True)

    def index(self) -> str:
        """Bring the index up; its address."""
        return self.deployer("up", "--profile", "ci", "--upstream", f"{self.bench.slow.origin}/simple/", "-q").strip()


@contextmanager
def _job(bench: Bench, store: Path) -> Iterator[Job]:
    made = Job(bench=bench, store=store)
    try:
        yield made
    finally:
        made.deployer("down", "--purge", "--yes", "--quiet")
        shutil.rmtree(made.home)


def jobs(bench: Bench) -> list[Grid]:
    """``pip install`` on the slow link, once the caches have been filled by a job before."""
    store = Path(tempfile.mkdtemp(prefix="ci-", dir=bench.work))
    grid = Grid(title="A CI job on the slow link", columns=(SECONDS, STORED), base=PIP, ratios=(SECONDS, STORED))
    with _job(bench, store) as first:
        first.pip(f"{bench.slow.origin}/simple/", "--cache-dir", str(store / "pip"))
    with _job(bench, store) as second:
        second.pip(second.index(), "--no-cache-dir")
        second.deployer("cache", "save", str(store / "ours"))
    kinds: Sequence[tuple[str, Callable[[Bench, Path], float], str]] = (
        (NOTHING, _without, ""),
        (PIP, _with_pip, "pip"),
        (OURS, _with_ours, "ours"),
    )
    cases = {name: partial(_measured, bench, store, run, kept) for name, run, kept in kinds}
    in_turns(grid, cases, rounds=bench.scale.rounds)
    grid.notes.append(
        f"*{PIP}*: copied into place. *{OURS}*: `up`, `cache restore --pages`, `pip install`, `cache save` and `down`. "
        f"{bench.index.count(*GROUPS)} wheels; the link has {bench.scale.rtt * 1000:.0f} ms and "
        f"{bench.scale.rate / 1e6:.0f} MB/s."
    )
    grid.goals = [
        Goal(number=17, what=f"{OURS} / {PIP}", values=grid.ratio(OURS, SECONDS), limit=1),
        Goal(number=17, what="what is stored / pip's cache", values=grid.ratio(OURS, STORED), limit=1),
    ]
    return [grid]


def _measured(bench: Bench, store: Path, run: Callable[[Bench, Path], float], kept: str) -> Mapping[str, float]:
    seconds = run(bench, store)
    size = sum(one.stat().st_size for one in (store / kept).rglob("*") if one.is_file()) if kept else 0
    return {SECONDS: seconds, STORED: size / 1e6}


def _without(bench: Bench, store: Path) -> float:
    with _job(bench, store) as job:
        started = time.perf_counter()
        job.pip(f"{bench.slow.origin}/simple/", "--no-cache-dir")
        return time.perf_counter() - started


def _with_pip(bench: Bench, store: Path) -> float:
    with _job(bench, store) as job:
        started = time.perf_counter()
        shutil.copytree(store / "pip", job.home / "cache")
        job.pip(f"{bench.slow.origin}/simple/", "--cache-dir", str(job.home / "cache"))
        return time.perf_counter() - started


def _with_ours(bench: Bench, store: Path) -> float:
    with _job(bench, store) as job:
        started = time.perf_counter()
        shutil.copytree(store / "ours", job.home / "cache")
        index = job.index()
        said = json.loads(job.deployer("cache", "restore", str(job.home / "cache"), "--pages", "--json"))["data"]
        job.pip(index, "--no-cache-dir")
        job.deployer("cache", "save", str(job.home / "cache"))
        job.deployer("down", "--quiet")
        seconds = time.perf_counter() - started
        if said["restored"] != bench.index.count(*GROUPS):
            raise SystemExit(f"deployer cache restore: {said}")
        return seconds


def lifetime(bench: Bench) -> list[Grid]:
    """An index for a job, from nothing to ready and back; beside a bare server, on data that is there and on none."""
    grid = Grid(title="An index for one job", columns=(READY, GONE), base=BARE, ratios=(READY,))
    cases: dict[str, Callable[[], Mapping[str, float]]] = {UP: partial(_up_and_down, bench)}
    with ExitStack() as stack:
        if PlainDevpi in bench.peers:
            there = bench.peer(PlainDevpi)
            stack.callback(there.remove)
            there.start()
            there.stop()
            cases = {BARE: partial(_started, there), FRESH: partial(_fresh, bench), **cases}
        in_turns(grid, cases, rounds=bench.scale.rounds)
    grid.notes.append(f"*{BARE}*: on data that is there. *{FRESH}*: with `devpi-init` and the index, as `up` has it.")
    grid.goals = [Goal(number=17, what=f"{UP}, taken down", values=grid.of(UP, GONE), limit=0.3, unit=" s")]
    if BARE in cases:
        grid.goals.append(Goal(number=17, what=f"{UP} / the bare server", values=grid.ratio(UP, READY), limit=1.5))
    return [grid]


def _up_and_down(bench: Bench) -> Mapping[str, float]:
    with _job(bench, bench.work) as job:
        started = time.perf_counter()
        job.index()
        ready = time.perf_counter()
        job.deployer("down", "--quiet")
        return {READY: ready - started, GONE: time.perf_counter() - ready}


def _started(peer: PlainDevpi) -> Mapping[str, float]:
    started = time.perf_counter()
    peer.start()
    ready = time.perf_counter()
    peer.stop()
    return {READY: ready - started, GONE: time.perf_counter() - ready}


def _fresh(bench: Bench) -> Mapping[str, float]:
    peer = bench.peer(PlainDevpi)
    try:
        return _started(peer)
    finally:
        peer.remove()
