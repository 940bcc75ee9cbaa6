"""What a command costs, against the cheapest things that could do a part of its work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.deployment import Deployment, answers, deployment
from benchmarks.measure import Ratio, Report, in_turns, timed

BARE = """
from typing import Annotated
import typer
app = typer.Typer(rich_markup_mode=None)
@app.command()
def up(name: Annotated[str, typer.Option("--name")] = "devpi"): "Start."
@app.command()
def down(): "Stop."
app()
"""
RATIOS = (
    Ratio(name="`--help` / `python -c pass`", of="deployer --help", to=("python -c pass",), goal=6),
    Ratio(
        name="`status` / (`docker ps` + Typer command)",
        of="deployer status",
        to=("docker ps", "bare Typer command"),
        goal=2,
    ),
    Ratio(
        name="no-change `up` / (`docker inspect` + request + Typer command)",
        of="deployer up, no change",
        to=("docker inspect", "one request", "bare Typer command"),
        goal=3,
    ),
)


def run(rounds: int) -> Report:
    """The suite ``command-line``: ``rounds`` of each command against one running deployment on Docker."""
    with deployment("docker") as made:
        bare = made.home / "bare.py"
        bare.write_text(BARE)
        samples = in_turns(_cases(made, bare), rounds=rounds)
    return Report(title="Command line", samples=samples, ratios=RATIOS)


def _cases(made: Deployment, bare: Path):  # type: ignore[no-untyped-def]
    def plain(*words: str | Path):  # type: ignore[no-untyped-def]
        return timed(lambda: _quietly(words, made))

    return {
        "python -c pass": plain(sys.executable, "-c", "pass"),
        "bare Typer --help": plain(sys.executable, bare, "--help"),
        "bare Typer command": plain(sys.executable, bare, "up"),
        "docker ps": plain("docker", "ps"),
        "docker inspect": plain("docker", "inspect", made.name),
        "one request": timed(lambda: answers(made.port)),
        "deployer --help": timed(lambda: made.run(["--help"])),
        "deployer status": timed(lambda: made.run(["status", "--engine", "docker"])),
        "deployer plan": timed(lambda: made.run(made.words("plan"), codes=(0, 10))),
        "deployer up, no change": timed(lambda: made.run(made.words("up"))),
    }


def _quietly(words: Sequence[str | Path], made: Deployment) -> None:
    subprocess.run(words, env=made.env, check=True, capture_output=True)
