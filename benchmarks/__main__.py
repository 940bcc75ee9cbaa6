"""``python -m benchmarks``: bring up the peers and ours on the same files, measure in turns, print the tables."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import platformdirs

from benchmarks import cold, command_line, faults, load, nginx, start, upload, warm
from benchmarks.bench import FULL, QUICK, Bench, Scale, bench
from benchmarks.measure import Goal, Grid, summary
from benchmarks.peers import OursOnDocker
from benchmarks.tools import Tools, installed

TABLES: Mapping[str, Callable[[Bench], list[Grid]]] = {
    "command-line": command_line.command_line,
    "start": start.start,
    "serving": warm.serving,
    "warm": warm.installing,
    "cold": cold.first_install,
    "stampede": cold.stampede,
    "faults": faults.faults,
    "upload": upload.uploads,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=TABLES, metavar="TABLE", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--quick", action="store_true", help="less of everything, and fewer peers")
    parser.add_argument("--all-peers", action="store_true", help="all peers with --quick, too")
    parser.add_argument("--docker", action="store_true", help="ours in a container as well")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    default = platformdirs.user_cache_path("deployer-benchmarks")
    parser.add_argument("--cache", type=Path, default=default, help="where the peers are installed (%(default)s)")
    options = parser.parse_args()
    nginx.binary()
    tools = installed(options.cache)
    scale = QUICK if options.quick else FULL
    if options.all_peers:
        scale = replace(scale, peers=FULL.peers)
    if options.docker:
        scale = replace(scale, peers=(*scale.peers, OursOnDocker))
    kept = RESULTS if options.write else None
    run(options.only or list(TABLES), scale, tools, engines=("process", "docker")[: 1 + options.docker], kept=kept)


def run(
    names: Sequence[str],
    scale: Scale,
    tools: Tools,
    *,
    engines: Sequence[str] = ("process",),
    kept: Path | None = None,
) -> None:
    """Measure the tables ``names``; print each as soon as it is there, and put all that is there into ``kept``.

    A table that can't be measured says so in its place, and the next one is gone on with.
    """
    started = time.monotonic()
    tables: list[str] = []
    goals: list[Goal] = []
    with bench(scale, tools, engines=engines) as made:
        for name in names:
            before = time.monotonic()
            try:
                grids = TABLES[name](made)
            except (SystemExit, OSError, httpx.HTTPError, subprocess.SubprocessError) as error:
                grids = []
                tables.append(f"## {name}\n\nNot measured: {error}\n")
                print(tables[-1], flush=True)
            for grid in grids:
                tables.append(grid.text())
                goals += grid.goals
                print(tables[-1], flush=True)
            print(f"{name}: {time.monotonic() - before:.0f} s", file=sys.stderr, flush=True)
            head, goal_table = _head(tools, time.monotonic() - started), summary(goals)
            if kept is not None:
                kept.write_text("\n".join([head, goal_table, *tables]), encoding="utf-8")
    print(goal_table, head, sep="\n", flush=True)


def _head(tools: Tools, seconds: float) -> str:
    parts = ", ".join(f"{part} {version(part)}" for part in ("deployer", "devpi-server"))
    uv = subprocess.check_output([tools.program("uv"), "--version"], text=True).split()[1]
    web = subprocess.run([nginx.binary(), "-v"], capture_output=True, text=True, check=True).stderr.partition("/")[2]
    return (
        f"# Results\n\n`python -m benchmarks {shlex.join(sys.argv[1:])}` on {datetime.now():%Y-%m-%d %H:%M} "
        f"({seconds / 60:.0f} minutes, commit {_commit()}): {os.cpu_count()} cores ({_processor()}), "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {parts}, uv {uv}, "
        f"nginx {web.strip()}, load by {load.name()}.\n\n"
        "Clients, servers and the upstream share these cores. Only ratios inside one table hold.\n"
    )


def _commit() -> str:
    git = shutil.which("git")
    words = ["describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(
        [git or "false", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
