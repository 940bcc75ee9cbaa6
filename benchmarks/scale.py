"""``python -m benchmarks.scale``: what a cluster of 1, 10, 100 and 1,000 members reaches; by hand, a minute.

What a page, a file, an upload and a replica cost is measured here, on a primary with two replicas. The rest is
simulated: nobody has a thousand machines at hand. Every figure of the second table is marked so.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import processes
from benchmarks.load import rate
from benchmarks.measure import number
from benchmarks.queueing import Simulation, Station

MEMBERS = (1, 10, 100, 1000)
BEAT = 1.0
"""Seconds between two reports of a replica (deployer/server/members/following.py)."""
FULL = 0.98
"""The part of its time in which a server is busy from which on its queue is taken to grow."""
WRITE_WAIT = 2.0
"""Seconds after which an upload is acknowledged when one replica has it (``--write-wait``)."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a processor: of nginx for a stored ``page`` and ``file``; of the primary's Python process for the
    ``upload`` of a file, for each replica that follows it (``follow``), and for one ``report``. Python uses one
    processor."""

    page: float
    file: float
    upload: float
    follow: float
    report: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """``requests``: a second, of pages and files; ``files``: the part of them that is for files. ``uploads``: a second.

    ``cores``: of each member's nginx. ``line``: bytes a second of each member; ``page_bytes``, ``file_bytes``: of one.
    """

    members: int
    requests: float = 10_000.0
    files: float = 0.1
    uploads: float = 1.0
    cores: int = 2
    line: float = 125e6
    page_bytes: float = 8e3
    file_bytes: float = 500e3
    seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """``reads``, ``uploads``: seconds of each that was answered. ``unanswered``: reads and uploads that were not.

    ``nginx``, ``line``, ``python``: the part of its time in which a member's nginx, its line, and the primary's Python
    process are busy.
    """

    reads: Sequence[float]
    uploads: Sequence[float]
    unanswered: tuple[int, int]
    nginx: float
    line: float
    python: float

    @property
    def reads_hold(self) -> bool:
        """Whether nothing that a read needs is busy all the time, so that no queue grows."""
        return max(self.nginx, self.line) < FULL

    @property
    def uploads_hold(self) -> bool:
        """The same of uploads."""
        return self.python < FULL


def simulate(costs: Costs, load: Load, *, seed: int = 1) -> Outcome:
    """Clients come at random, each to the next member. Uploads go to the primary, which all replicas follow."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    simulation = Simulation()
    nginx = [Station(simulation, load.cores) for _ in range(load.members)]
    lines = [Station(simulation) for _ in range(load.members)]
    python = Station(simulation)
    reads: list[float] = []
    uploads: list[float] = []
    begun = [0, 0]

    def at_random(often: float, event: Callable[[], None]) -> None:
        def happen() -> None:
            event()
            simulation.after(chance.expovariate(often), happen)

        if often:
            simulation.after(chance.expovariate(often), happen)

    def note(into: list[float], since: float) -> None:
        into.append(simulation.now - since)

    def read() -> None:
        member, since = begun[0] % load.members, simulation.now
        begun[0] += 1
        is_file = chance.random() < load.files
        size = load.file_bytes if is_file else load.page_bytes
        sent = partial(lines[member].serve, size / load.line, partial(note, reads, since))
        nginx[member].serve(costs.file if is_file else costs.page, sent)

    def upload() -> None:
        begun[1] += 1
        python.serve(costs.upload, partial(spread, simulation.now))

    def spread(since: float) -> None:
        left, done = load.members - 1, [False]

        def acknowledge() -> None:
            if not done[0]:
                done[0] = True
                note(uploads, since)

        def followed() -> None:
            nonlocal left
            left -= 1
            if not left or simulation.now - committed > WRITE_WAIT:
                acknowledge()

        if not left:
            acknowledge()
        committed = simulation.now
        for _ in range(load.members - 1):
            python.serve(costs.follow, partial(python.serve, costs.report, followed))

    at_random(load.requests, read)
    at_random(load.uploads, upload)
    for _ in range(load.members - 1):
        at_random(1 / BEAT, partial(python.serve, costs.report, _nothing))
    simulation.run(load.seconds)
    return Outcome(
        reads=reads,
        uploads=uploads,
        unanswered=(begun[0] - len(reads), begun[1] - len(uploads)),
        nginx=statistics.mean(station.use() for station in nginx),
        line=statistics.mean(station.use() for station in lines),
        python=python.use(),
    )


def _nothing() -> None:
    pass


def most_uploads(costs: Costs, members: int) -> float:
    """Uploads a second with which the primary's Python process is busy all the time; 0 when reports alone do that."""
    replicas = members - 1
    return max(0.0, 1 - replicas * costs.report / BEAT) / (costs.upload + replicas * (costs.follow + costs.report))


def through_cdn(load: Load, *, pages: int, formats: int, places: int, seconds: float) -> Load:
    """The load that a CDN with so many ``places`` passes on, for ``pages`` that are asked for in ``formats``, each kept
    for ``seconds`` (``server.cdn``; 0 when pages are asked for each time). It has all files."""
    asked = load.requests * (1 - load.files)
    passed = min(asked, pages * formats * places / seconds) if seconds else asked
    return replace(load, requests=passed, files=0.0)


def measured(seconds: float) -> Costs:
    """Measure on this machine: a primary with two replicas."""
    from tests.indexed_server import FILE, JSON, get, upload
    from tests.members import Members
    from tests.server_process import request
    from tests.upstream import make_wheel

    with TemporaryDirectory(prefix="deployer-scale-") as scratch:
        members = Members(Path(scratch), replicas=2)
        try:
            primary = members.start_primary()
            assert primary.process is not None
            auth, pids = primary.auth, processes.tree(primary.process.pid)
            workers = processes.named(pids, "nginx: worker")
            python = pids - processes.named(pids, "nginx:")
            body = {"type": "stage", "bases": [], "volatile": True}
            assert request(primary.port, "PUT", "/root/dev", body=body, headers=auth)[0] == 200
            content = {"asked.py": b"".join(random.Random(1).randbytes(1000) for _ in range(500))}  # noqa: S311
            assert upload(primary, auth, "root/dev", make_wheel("asked", "1.0", files=content)) == 200
            page = "/root/dev/+simple/asked/"
            shown = json.loads(get(primary.port, page, JSON).body)["files"][0]["url"]
            file = "/root/dev/" + shown.removeprefix("../../").partition("#")[0]

            def of_nginx(path: str, headers: dict[str, str]) -> float:
                for _ in range(2):
                    assert get(primary.port, path, headers).status == 200
                before = processes.run_time(workers)
                url = f"http://127.0.0.1:{primary.port}{path}"
                done = rate(url, connections=8, seconds=seconds, headers=headers)
                return (processes.run_time(workers) - before) / done.done

            def of_python(action: Callable[[], int]) -> float:
                before, times = processes.run_time_of_threads(python), action()
                return (processes.run_time_of_threads(python) - before) / times

            def write(name: str) -> int:
                with ThreadPoolExecutor(4) as pool:
                    wheels = (make_wheel(f"{name}{one}", "1.0") for one in range(40))
                    done = list(pool.map(lambda wheel: upload(primary, auth, "root/dev", wheel), wheels))
                assert set(done) == {200}
                return len(done)

            def rest() -> int:
                time.sleep(10 * seconds)
                return round(10 * seconds)

            packed = {**JSON, "Accept-Encoding": "gzip"}
            costs = Costs(page=of_nginx(page, packed), file=of_nginx(file, FILE), upload=0, follow=0, report=0)
            alone, quiet = of_python(partial(write, "alone")), of_python(rest)
            for replica in members.others:
                members.launch(replica)
            for replica in members.others:
                members.wait(replica)
            number_of = len(members.others)
            report = (of_python(rest) - quiet) / number_of * BEAT
            followed = (of_python(partial(write, "followed")) - alone) / number_of
            return replace(costs, upload=alone, report=max(report, 0.0), follow=max(followed - report, 0.0))
        finally:
            members.end()


def table(costs: Costs, *, seconds: float = 10.0) -> list[str]:
    """The simulated table, as Markdown."""
    head = ("members", "requests/s", "uploads/s", "nginx", "line", "Python of the primary")
    lines = ["| | " + " | ".join((*head, "a read: p50, p99", "an upload: p50, p99", "most uploads/s")) + " |"]
    lines.append("|---" * 10 + "|")
    cases = [(f"simulated, {members}", Load(members=members, seconds=seconds)) for members in MEMBERS]
    pages = {"pages": 500, "formats": 3, "places": 10}
    cdn = Load(members=1, seconds=seconds)
    cases.append(("simulated, CDN: files", through_cdn(cdn, **pages, seconds=0)))
    cases.append(("simulated, CDN: files, pages 30 s", through_cdn(cdn, **pages, seconds=30)))
    for name, load in cases:
        found = simulate(costs, load)
        shares = (f"{100 * share:.0f} %" for share in (found.nginx, found.line, found.python))
        reads = _spread(found.reads, holds=found.reads_hold)
        uploads = _spread(found.uploads, holds=found.uploads_hold)
        most = number(most_uploads(costs, load.members))
        cells = (str(load.members), number(load.requests), number(load.uploads), *shares, reads, uploads, most)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], *, holds: bool) -> str:
    if not holds or len(values) < 2:
        return "grows" if not holds else "—"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"{number(1000 * cuts[49])} ms, {number(1000 * cuts[98])} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of load for each figure")
    options = parser.parse_args()
    costs = measured(options.seconds)
    lines = ["| measured here | ms of a processor |", "|---|---|"]
    lines += [f"| {name} | {number(1000 * value)} |" for name, value in asdict(costs).items()]
    sys.stdout.write("\n".join([*lines, "", *table(costs)]) + "\n")


if __name__ == "__main__":
    main()
