"""Tables of ``deployer bundle``: what it costs to write and to load, beside tar on the same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.deployment import Deployment, deployment, new
from benchmarks.measure import Goal, Grid, in_turns
from tests.upstream import make_wheel

TAR, CREATE, LOAD, NOTHING = "tar", "`bundle create`", "`bundle load`", "`bundle create`, delta of nothing"
SECONDS, RATE, SIZE = "s", "MB/s", "MB"
WHEELS = 100


def bundles(bench: Bench) -> list[Grid]:
    """Uploads of one deployment, into one file and into another deployment."""
    megabytes = bench.scale.bundled
    grid = Grid(
        title=f"A bundle of {WHEELS} wheels, {megabytes} MB",
        columns=(SECONDS, RATE, SIZE),
        base=TAR,
        ratios=(SECONDS, RATE),
    )
    with deployment("process", upstream=f"{bench.origin}/simple/", command=bench.tools.deployer) as made:
        _fill(made, bench.work, megabytes)
        room = Path(tempfile.mkdtemp(prefix="bundle-", dir=bench.work))
        bundle, have = room / "air.tar", room / "have.json"
        made.run(["bundle", "create", str(bundle), "--no-wheels"])
        made.run(["bundle", "manifest", str(have)])
        cases: dict[str, Callable[[], Mapping[str, float]]] = {
            TAR: partial(_tar, made, room),
            CREATE: partial(_create, made, room),
            LOAD: partial(_load, made, bundle, megabytes),
            NOTHING: partial(_create, made, room, "--since", str(have)),
        }
        in_turns(grid, cases, rounds=bench.scale.rounds)
        shutil.rmtree(room)
    grid.notes.append(
        f"*{TAR}*: `tar cf` of devpi's files. It and `create` include fsync(2) of the result; `create` and `load` the "
        "start of Python, and each computes all checksums."
    )
    grid.goals = [
        Goal(number=10, what=f"{CREATE} / {TAR}, rate", values=grid.ratio(CREATE, RATE), limit=0.7, at_least=True),
        Goal(number=10, what=NOTHING, values=grid.of(NOTHING, SIZE), limit=1, unit=" MB", worst=True),
    ]
    return [grid]


def _fill(made: Deployment, work: Path, megabytes: int) -> None:
    wheels = Path(tempfile.mkdtemp(prefix="wheels-", dir=work))
    for number in range(WHEELS):
        content = os.urandom(megabytes * 1_000_000 // WHEELS)
        wheel = make_wheel(f"project-{number}", "1.0", files={"data.bin": content})
        (wheels / wheel.filename).write_bytes(wheel.content)
    made.run(["adopt", str(wheels), "--index", "root/dev"])
    shutil.rmtree(wheels)


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A file that is made in here, and was never there before."""
    path.unlink(missing_ok=True)
    os.sync()
    yield path
    path.unlink()


def _measured(seconds: float, size: int) -> Mapping[str, float]:
    return {SECONDS: seconds, RATE: size / 1e6 / seconds, SIZE: size / 1e6}


def _tar(made: Deployment, room: Path) -> Mapping[str, float]:
    with _new(room / "plain.tar") as path:
        started = time.perf_counter()
        subprocess.run(["tar", "cf", str(path), "-C", str(made.data), "+files"], check=True)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        return _measured(time.perf_counter() - started, path.stat().st_size)


def _create(made: Deployment, room: Path, *more: str) -> Mapping[str, float]:
    with _new(room / "measured.tar") as path:
        started = time.perf_counter()
        made.run(["bundle", "create", str(path), "--no-wheels", *more])
        return _measured(time.perf_counter() - started, path.stat().st_size)


def _load(made: Deployment, bundle: Path, megabytes: int) -> Mapping[str, float]:
    """Into a deployment that is up, with the same indexes and no file."""
    other = new("process", upstream=made.upstream, command=made.command)
    try:
        other.up()
        started = time.perf_counter()
        said = other.run(["bundle", "load", str(bundle), "--no-pip", "--json"])
        seconds = time.perf_counter() - started
        if len(json.loads(said)["data"]["loaded"]) != WHEELS:
            raise SystemExit(f"deployer bundle load: {said}")
        return _measured(seconds, megabytes * 1_000_000)
    finally:
        other.purge()
