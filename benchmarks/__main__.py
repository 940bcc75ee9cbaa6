"""``python -m benchmarks``: bring up the peers and ours on the same files, measure in turns, print the tables."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from benchmarks import (
    addresses,
    builds,
    bundle,
    cache,
    changes,
    ci,
    cluster,
    cold,
    command_line,
    costs,
    faults,
    guard,
    load,
    nginx,
    prewarm,
    readers,
    resolution,
    start,
    tls,
    transparent,
    upload,
    vpn,
    warm,
    web,
)
from benchmarks.bench import FULL, QUICK, Bench, Scale, bench
from benchmarks.measure import Goal, Grid, cause, summary
from benchmarks.peers.ours import OursOnDocker
from benchmarks.tools import Tools, installed
from deployer import DISTRIBUTION

TABLES: Mapping[str, Callable[[Bench], list[Grid]]] = {
    "command-line": command_line.command_line,
    "start": start.start,
    "serving": warm.serving,
    "addresses": addresses.addresses,
    "warm": warm.installing,
    "pip-warm": warm.pip_downloading,
    "vpn": vpn.vpn,
    "cold": cold.first_install,
    "stampede": cold.stampede,
    "resolution": resolution.cold,
    "cold-page": costs.pages,
    "cold-file": costs.files,
    "warm-resolution": resolution.warm,
    "resolution-stampede": cold.resolving_stampede,
    "faults": faults.faults,
    "guard": guard.guard,
    "readers": readers.readers,
    "cache": cache.cache,
    "cluster": cluster.reads,
    "upload": upload.uploads,
    "bundle": bundle.bundles,
    "prewarm": prewarm.prewarm,
    "ci": ci.jobs,
    "ci-index": ci.lifetime,
    "transparent": transparent.transparent,
    "changes": changes.changes,
    "builds": builds.builds,
    "web": web.web,
    "tls": tls.tls,
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no peer outlives it
    nginx.binary()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends the servers as well
    with alone(options.cache):
        _measure(options)


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Nobody else measures with ``cache``: it would be installed anew under a run, and neither's figures be right.

    Raises SystemExit.
    """
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / "lock", timeout=0):
            yield
    except Timeout:
        raise SystemExit(f"another benchmark runs with {cache}\nhint: wait for its end, or give --cache") from None


def _measure(options: argparse.Namespace) -> None:
    scale = QUICK if options.quick else FULL
    if options.all_peers:
        scale = replace(scale, peers=FULL.peers)
    if options.docker:
        scale = replace(scale, peers=(*scale.peers, OursOnDocker))
    tools = installed(options.cache, [kind.crate for kind in scale.peers if kind.crate])
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
    commit = checked_out(Path(__file__).parent)
    tables: list[str] = []
    goals: list[Goal] = []
    with bench(scale, tools, engines=engines) as made:
        for name in names:
            before = time.monotonic()
            texts, reached = table(TABLES[name], made, name)
            tables += texts
            goals += reached
            print(*texts, sep="\n", flush=True)
            print(f"{name}: {time.monotonic() - before:.0f} s", file=sys.stderr, flush=True)
            head, goal_table = _head(tools, time.monotonic() - started, commit), summary(goals)
            if kept is not None:
                kept.write_text("\n".join([head, goal_table, *tables]), encoding="utf-8")
        print(goal_table, head, sep="\n", flush=True)


def table(measure: Callable[[Bench], list[Grid]], made: Bench, name: str) -> tuple[list[str], list[Goal]]:
    """The texts of one table and its goals; where it can't be measured at all, whyever, a line in its place."""
    try:
        grids = measure(made)
        return [grid.text() for grid in grids], [goal for grid in grids for goal in grid.goals]
    except (Exception, SystemExit) as error:  # the tables before and after it took minutes each
        return [f"## {name}\n\nNot measured: {cause(error)}\n"], []


def _head(tools: Tools, seconds: float, commit: str) -> str:
    parts = ", ".join(f"{part} {version(part)}" for part in (DISTRIBUTION, "devpi-server"))
    uv = subprocess.check_output([tools.program("uv"), "--version"], text=True).split()[1]
    web = subprocess.run([nginx.binary(), "-v"], capture_output=True, text=True, check=True).stderr.partition("/")[2]
    return (
        f"# Results\n\n`python -m benchmarks {shlex.join(sys.argv[1:])}` on {datetime.now():%Y-%m-%d %H:%M} "
        f"({seconds / 60:.0f} minutes, commit {commit}): {os.cpu_count()} cores ({_processor()}), "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {parts}, uv {uv}, "
        f"nginx {web.strip()}, load by {load.name()}.\n\n"
        "Clients, servers and the upstream share these cores. Only ratios inside one table hold.\n"
    )


def checked_out(directory: Path) -> str:
    """The commit of the checkout around ``directory``, and whether it was changed beyond the results themselves."""
    git = shutil.which("git") or "false"

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([git, *words], cwd=directory, capture_output=True, text=True, check=False)

    commit = said("rev-parse", "--short", "HEAD").stdout.strip()
    if not commit:
        return "unknown"
    changed = said("diff", "--quiet", "HEAD", "--", ":/", f":(top,exclude,glob)**/{RESULTS.name}").returncode
    return f"{commit}-dirty" if changed else commit


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
