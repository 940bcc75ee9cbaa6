"""``python -m benchmarks [SUITE…]``: run suites and print their tables."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shlex
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

SUITES = {"command-line": "command_line", "start": "start"}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"which: {', '.join(SUITES)} (all when left out)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each case is run, one more to warm up")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))} (there are {', '.join(SUITES)})")
    texts = [_head()]
    print(texts[0])
    for name in options.suites or SUITES:
        report = importlib.import_module(f"benchmarks.{SUITES[name]}").run(options.rounds)
        texts.append(report.text())
        print(texts[-1], flush=True)
    if options.write:
        RESULTS.write_text("\n".join(texts), encoding="utf-8")


def _head() -> str:
    parts = ("deployer", "devpi-server", "typer")
    versions = ", ".join(f"{part} {version(part)}" for part in parts)
    return (
        f"# Results\n\n`python -m benchmarks {shlex.join(sys.argv[1:])}` on {date.today().isoformat()}: "
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{versions}.\n"
        "Client, server and upstream share these cores. Only ratios inside one table hold.\n"
    )


if __name__ == "__main__":
    main()
