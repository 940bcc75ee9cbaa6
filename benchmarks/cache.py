"""A table of what the inventory and the history take: lists, searches, what one use costs, and ninety days."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import Goal, Grid
from deployer.protocol import InventoryRequest, Kind
from deployer.server.inventory import reading
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.items import item_of
from deployer.server.inventory.watching import Uses
from deployer.server.nginx.history import HOURS, History

PROJECTS, VERSIONS, ROUNDS, LINES = 2000, 5, 10, 10_000
URL = "https://packages.example.com/simple/"
LIST, SEARCH, PROJECT, LINE, DAYS = "all projects, ms", "search, ms", "one project, ms", "a log line, µs", "90 days, ms"


def cache(_bench: Bench) -> list[Grid]:
    """In this process, without a server: of the server they are a part."""
    columns = (LIST, SEARCH, PROJECT, LINE, DAYS)
    grid = Grid(title=f"The inventory of {PROJECTS} projects, and the history", columns=columns)
    with TemporaryDirectory(prefix="deployer-bench-") as directory:
        inventory, history = _filled(Path(directory)), _lived(Path(directory))
        uses = Uses(inventory)
        for _ in range(ROUNDS):
            grid.add(
                "deployer",
                {
                    LIST: 1000 * _taken(lambda: reading.answer(inventory, InventoryRequest())),
                    SEARCH: 1000 * _taken(lambda: reading.answer(inventory, InventoryRequest(search="ect-19"))),
                    PROJECT: 1000 * _taken(lambda: reading.answer(inventory, InventoryRequest(project="project-7"))),
                    LINE: 1e6 / LINES * _taken(lambda: _lines(uses, inventory)),
                    DAYS: 1000 * _taken(history.since),
                },
            )
        inventory.close()
    for column, limit in ((LIST, 100), (SEARCH, 100), (DAYS, 50)):
        grid.goals.append(Goal(number=19, what=column, values=grid.of("deployer", column), limit=limit, unit=" ms"))
    return [grid]


def _taken(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _path(project: int, version: int) -> str:
    return f"+f/{(project * 7) % 4096:03x}/{project:09}{version:04}/project_{project}-{version}-py3-none-any.whl"


def _filled(directory: Path) -> Inventory:
    inventory = Inventory(directory / "inventory.sqlite")
    known: dict[str, Any] = {"size": 50_000, "first": 1.0, "last": 2.0, "origin": URL}
    for number in range(PROJECTS):
        name = f"project-{number}"
        inventory.keep(item_of(Kind.PAGE, "root/pypi", name, project=name, **known))
        for version in range(VERSIONS):
            path = _path(number, version)
            inventory.keep(item_of(Kind.FILE, "root/pypi", path, project=name, **known))
            inventory.keep(item_of(Kind.COMPANION, "root/pypi", f"{path}.metadata", project=name, **known))
    inventory.flush()
    return inventory


def _line(path: str, at: str) -> dict[str, Any]:
    told = {"time": at, "method": "GET", "status": 200, "path": path, "bytes": 1000, "from": "file"}
    return told | {"fetched": "", "kept": ""}


def _lines(uses: Uses, inventory: Inventory) -> None:
    for number in range(LINES):
        uses.line(_line(f"/root/pypi/{_path(number % PROJECTS, number % VERSIONS)}", "2026-01-02T03:04:05+00:00"))
    inventory.flush()


def _lived(directory: Path) -> History:
    history = History(directory / "history.json")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(HOURS):
        history.line(_line("/root/pypi/+f/x", (start + timedelta(hours=number)).isoformat()))
    return history
