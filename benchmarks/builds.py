"""A container build that installs ten packages from a deployment, against one that has their wheels in its context."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.deployment import deployment
from benchmarks.index import Size, make
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.upstream import serving
from tests.engines import BASE

NUMBER = 17
CONTEXT, OURS = "wheels in the context", "`deployer build`"
SECONDS, FETCHED = "ten packages, s", "MB fetched"
GROUP = "small"
_PIP = "python3 $(ls /usr/share/python-wheels/pip-*.whl)/pip install --no-cache-dir --target /target"
"""As Debian ships it; it needs nothing that the base image does not have."""


def builds(bench: Bench) -> list[Grid]:
    """The second build, without layers of the first one, with the engine that answers."""
    index = make(bench.work / "builds/index", Size(small=10, medium=0, large=0, megabytes=10, links=200))
    builder = _builder()
    grid = Grid(
        title=f"Container builds with {builder}: {index.count(GROUP)} packages, {index.megabytes(GROUP):.0f} MB",
        columns=(SECONDS, FETCHED),
        base=CONTEXT,
        ratios=(SECONDS,),
    )
    wanted = " ".join(index.wanted(GROUP))
    ours = _context(bench.work / "builds/ours", f"RUN {_PIP} {wanted}\n")
    both = _context(
        bench.work / "builds/both", f"COPY wheels /wheels\nRUN {_PIP} --no-index --find-links /wheels {wanted}\n"
    )
    (both / "wheels").mkdir()
    for wheel in index.files.glob("*.whl"):
        (both / "wheels" / wheel.name).hardlink_to(wheel)
    image = f"localhost/deployer-bench:{uuid.uuid4().hex[:8]}"
    with (
        serving(index, kind="upstream", rtt=bench.scale.rtt, rate=bench.scale.rate) as upstream,
        deployment("process", upstream=f"{upstream.origin}/simple/", command=bench.tools.deployer) as made,
    ):
        env = {**os.environ, **made.env}

        def from_context() -> Mapping[str, float]:
            return {SECONDS: _seconds([builder, "build", "--no-cache", "-t", image, str(both)], env)}

        def from_index() -> Mapping[str, float]:
            upstream.forget()
            words = ["build", "--builder", builder, "--no-cache", "-t", image, str(ours)]
            return {SECONDS: _seconds([str(made.command), *words], env), FETCHED: upstream.asked().megabytes}

        cases: dict[str, Callable[[], Mapping[str, float]]] = {CONTEXT: from_context, OURS: from_index}
        try:
            for case in cases.values():
                case()
            in_turns(grid, cases, rounds=2 * bench.scale.few)
        finally:
            subprocess.run([builder, "rmi", "-f", image], capture_output=True, check=False)
    grid.notes.append("All of the command, with `--no-cache`; the first build of each is not counted.")
    grid.goals = [
        Goal(number=NUMBER, what=f"second build / {CONTEXT}", values=grid.ratio(OURS, SECONDS), limit=1.2),
        Goal(number=NUMBER, what="second build: MB fetched", values=grid.of(OURS, FETCHED), limit=0, worst=True),
    ]
    return [grid]


def _builder() -> str:
    """The first one that answers and has the base image. Raises SystemExit."""
    for name in ("nerdctl", "docker", "podman"):
        try:
            if not subprocess.run([name, "image", "inspect", BASE], capture_output=True, check=False).returncode:
                return name
        except FileNotFoundError:
            continue
    raise SystemExit(f"no engine has the image {BASE}")


def _context(directory: Path, steps: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(f"FROM {BASE}\n{steps}", encoding="utf-8")
    return directory


def _seconds(words: Sequence[str], env: Mapping[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - started
