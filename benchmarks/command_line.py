"""What a command costs, against the cheapest things that could do a part of its work."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.deployment import Deployment, answers, deployment
from benchmarks.measure import Goal, Grid, in_turns, timed

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
COLUMN = "ms"
EMPTY, HELP, STATUS, PS, REQUEST, TYPER = (
    "python -c pass",
    "deployer --help",
    "deployer status",
    "docker ps",
    "one request",
    "bare Typer command",
)
UNCHANGED, INSPECT = "deployer up, no change", "docker inspect"


def command_line(bench: Bench) -> list[Grid]:
    """Each command against one running deployment; on Docker where that is asked for, else as a process."""
    engine = "docker" if "docker" in bench.engines else "process"
    grid = Grid(title=f"Command line (engine {engine})", columns=(COLUMN,), base=EMPTY)
    command = bench.tools.deployer
    with deployment(engine, upstream=f"{bench.origin}/simple/", command=command) as made:
        bare = made.home / "bare.py"
        bare.write_text(BARE)
        cases = _cases(made, bare)
        for case in cases.values():
            case()  # the first of each fills caches
        in_turns(grid, cases, rounds=3 * bench.scale.rounds)
    grid.goals = [
        Goal(number=8, what=f"`{HELP}` / `{EMPTY}`", values=grid.ratio(HELP, COLUMN), limit=6),
        Goal(
            number=8,
            what=f"`{STATUS}` / (`{PS}` + {TYPER})",
            values=grid.ratio(STATUS, COLUMN, PS, TYPER) if engine == "docker" else (),
            limit=2,
        ),
    ]
    if engine == "docker":
        least = grid.ratio(UNCHANGED, COLUMN, INSPECT, REQUEST, TYPER)
        grid.goals.append(
            Goal(number=8, what=f"no-change `up` / (`{INSPECT}` + request + {TYPER})", values=least, limit=3)
        )
    return [grid]


def _cases(made: Deployment, bare: Path) -> dict[str, Callable[[], Mapping[str, float]]]:
    docker: dict[str, Callable[[], object]] = {
        PS: lambda: _quietly(("docker", "ps"), made),
        INSPECT: lambda: _quietly(("docker", "inspect", made.name), made),
    }
    python = made.command.with_name("python")
    calls: dict[str, Callable[[], object]] = {
        EMPTY: lambda: _quietly((python, "-c", "pass"), made),
        "bare Typer --help": lambda: _quietly((python, bare, "--help"), made),
        TYPER: lambda: _quietly((python, bare, "up"), made),
        **(docker if made.engine == "docker" else {}),
        REQUEST: lambda: answers(made.port),
        HELP: lambda: made.run(["--help"]),
        STATUS: lambda: made.run(["status", "--engine", made.engine]),
        "deployer plan": lambda: made.run(made.words("plan"), codes=(0, 10)),
        UNCHANGED: lambda: made.run(made.words("up")),
    }
    return {name: lambda call=call: {COLUMN: 1000 * timed(call)} for name, call in calls.items()}  # type: ignore[misc]


def _quietly(words: Sequence[str | Path], made: Deployment) -> None:
    subprocess.run(words, env=made.env, check=True, capture_output=True)
