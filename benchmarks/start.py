"""How soon a server is ready, against the same server started by hand and polled without a pause."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.deployment import Deployment, deployment, until_it_answers
from benchmarks.measure import Ratio, Report, in_turns

MEMORY_GOAL = 128.0


def run(rounds: int) -> Report:
    """The suite ``start``: each round starts every server once, on data that is there, and stops it."""
    with deployment("docker") as boxed, deployment("process") as bare:
        peaks: dict[str, float] = {}
        ends: dict[str, list[float]] = {"docker": [], "process": []}
        by_hand = _docker_run(boxed)
        boxed.down()
        bare.down()
        cases: Mapping[str, Callable[[], float]] = {
            "docker run, first 200": lambda: _polled(by_hand, boxed, stop=("docker", "rm", "--force", "by-hand")),
            "deployer up on docker": lambda: _up(boxed, ends["docker"], peaks),
            "devpi-server, first 200": lambda: _bare(bare),
            "deployer up as a process": lambda: _up(bare, ends["process"], peaks),
        }
        samples = in_turns(cases, rounds=rounds)
        boxed.up()
        bare.up()
    samples |= {f"from the first 200 to the end of up, {name}": seconds[1:] for name, seconds in ends.items()}
    return Report(
        title="Start on an existing image and data",
        samples=samples,
        ratios=(
            Ratio(
                name="`up` on Docker / `docker run`",
                of="deployer up on docker",
                to=("docker run, first 200",),
                goal=1.2,
            ),
            Ratio(
                name="`up` as a process / bare devpi-server",
                of="deployer up as a process",
                to=("devpi-server, first 200",),
                goal=1.5,
            ),
        ),
        bounds=(
            *(
                (f"first 200 to the end of `up`, {name}, most", max(seconds[1:]), 0.5, "s")
                for name, seconds in ends.items()
            ),
            *((f"peak memory of the server, {name}", peak, MEMORY_GOAL, "MiB") for name, peak in peaks.items()),
        ),
        notes=(
            "`up` is timed as a whole process, from its start to its end: Python's own start, the look at the host, "
            "the start of the server, the proof that it is ours, the login and the comparison of the indexes. What it "
            "is compared with ends at the first 200 on `/+api`, with a cheap key derivation on both sides.",
        ),
    )


def _docker_run(made: Deployment) -> list[str]:
    """The command of the deployment's own container, under another name and with no label of ours."""
    words = shlex.split(made.run(["render", *made.words("plan")[1:], "--format", "argv"]))
    kept = [word for word in words if not word.startswith("--label=")]
    return ["--name=by-hand" if word == f"--name={made.name}" else word for word in kept]


def _polled(command: list[str], made: Deployment, *, stop: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = until_it_answers(made.port) - started
    subprocess.run(stop, check=True, capture_output=True)
    return seconds


def _bare(made: Deployment) -> float:
    """devpi-server itself, with the small parameters that our start has, too."""
    cheap = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
    secret = made.data / ".deployer" / "secret"
    command = [
        *(
            str(Path(sys.executable).with_name("devpi-server")),
            "--serverdir",
            str(made.data),
            "--secretfile",
            str(secret),
        ),
        *("--host", "127.0.0.1", "--port", str(made.port), *cheap),
    ]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        seconds = until_it_answers(made.port) - started
        server.terminate()
    return seconds


def _up(made: Deployment, ends: list[float], peaks: dict[str, float]) -> float:
    first: list[float] = []
    asking = threading.Thread(target=lambda: first.append(until_it_answers(made.port)))
    started = time.perf_counter()
    asking.start()
    made.up()
    end = time.perf_counter()
    asking.join()
    ends.append(end - first[0])
    peaks[made.engine] = max(peaks.get(made.engine, 0.0), _peak(made))
    made.down()
    return end - started


def _peak(made: Deployment) -> float:
    """MiB that the largest process had at its worst moment (``VmHWM``): devpi-server's, not that of its supervisor."""
    if made.engine == "docker":
        format_ = "{{.State.Pid}}"
        root = int(subprocess.check_output(["docker", "inspect", f"--format={format_}", made.name], text=True))
        pids = [root, *_below(root)]
    else:
        pids = [pid for pid in _all() if str(made.data).encode() in _read(pid, "cmdline")]
    return max(int(found[1]) for pid in pids if (found := re.search(rb"VmHWM:\s+(\d+)", _read(pid, "status")))) / 1024


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _below(root: int) -> list[int]:
    children = [pid for pid in _all() if re.search(rb"PPid:\s+%d\n" % root, _read(pid, "status"))]
    return [pid for child in children for pid in (child, *_below(child))]
