"""Cases run in turns, what each came to, and its ratio to the base of the same round."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

LONG = 20.0
"""Seconds of a round of one row after which there is no other of that row: all tables take twenty minutes at most."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One thing that should be so: the median (of counts the worst) of ``values`` is at most (at least) ``limit``.

    Without values it was not measured.
    """

    number: int
    what: str
    values: Sequence[float]
    limit: float
    at_least: bool = False
    worst: bool = False
    unit: str = ""

    @property
    def value(self) -> float:
        if self.worst:
            return min(self.values) if self.at_least else max(self.values)
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if not self.values:
            return "not measured"
        reached = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "reached" if reached else "**not reached**"

    def row(self) -> str:
        sign = "≥" if self.at_least else "≤"
        seen = spread(self.values) if self.values else "—"
        return f"| {self.number} | {self.what} | {sign} {self.limit:g}{self.unit} | {seen} | {self.verdict} |"


@dataclass(kw_only=True)
class Grid:
    """A table of samples, a list a round for each row and column.

    ``columns``: names, with units. ``base``: the row that the others are divided by, where there is one;
    ``ratios``: the columns for which that is said.
    """

    title: str
    columns: Sequence[str]
    base: str = ""
    ratios: Sequence[str] | None = None
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    @contextmanager
    def measuring(self, row: str) -> Iterator[None]:
        """What fails in here costs this row alone: it goes, of all rounds, and a note says why."""
        try:
            yield
        except (Exception, SystemExit) as error:  # minutes of other rows hang on it, whatever it was
            self.samples.pop(row, None)
            self.lost.add(row)
            self.notes.append(f"*{row}* was not measured: {cause(error)}")

    def add(self, row: str, values: Mapping[str, float]) -> None:
        """One round of ``row``."""
        for column, value in values.items():
            if column not in self.columns:
                raise KeyError(column)
            self.samples.setdefault(row, {}).setdefault(column, []).append(value)

    def of(self, row: str, column: str) -> list[float]:
        """The samples; empty when that was not measured."""
        return self.samples.get(row, {}).get(column, [])

    def ratio(self, row: str, column: str, *bases: str) -> list[float]:
        """The samples of ``row`` divided by those of ``bases`` together, round by round."""
        below = [self.of(base, column) for base in bases or (self.base,)]
        return [above / sum(under) for above, *under in zip(self.of(row, column), *below, strict=False) if sum(under)]

    def text(self) -> str:
        """The table as Markdown: median (least–most), and the median ratio to the base."""
        lines = [
            f"## {self.title}",
            "",
            "| | " + " | ".join(self.columns) + " |",
            "|---" * (len(self.columns) + 1) + "|",
        ]
        lines += [
            f"| {row} | " + " | ".join(self._cell(row, column) for column in self.columns) + " |"
            for row in self.samples
        ]
        if self.base and self.base in self.samples:
            lines += [
                "",
                f"Each cell: median (least–most) and, after ×, the median ratio to *{self.base}* of the same round.",
            ]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def _cell(self, row: str, column: str) -> str:
        values = self.of(row, column)
        if not values:
            return "—"
        compared = self.ratios is None or column in self.ratios
        ratio = self.ratio(row, column) if self.base and compared and row != self.base else []
        return spread(values) + (f" ×{number(statistics.median(ratio))}" if ratio else "")


def summary(goals: Iterable[Goal]) -> str:
    """All goals as one table of Markdown."""
    lines = ["## Goals", "", "| | | goal | measured: median (least–most) | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(goal.row() for goal in sorted(goals, key=lambda goal: goal.number))]) + "\n"


def spread(values: Sequence[float]) -> str:
    """``median (least–most)``, or the one value where all are the same."""
    texts = [number(value) for value in (statistics.median(values), min(values), max(values))]
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]} ({texts[1]}–{texts[2]})"


def number(value: float) -> str:
    """Three digits that mean something: 0.0123, 1.23, 123, 12.3k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k" if abs(value) < 1e6 else f"{value / 1000:.0f}k"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def in_turns(grid: Grid, cases: Mapping[str, Callable[[], Mapping[str, float]]], *, rounds: int) -> Grid:
    """Run every case once a round, A B C, A B C, …, so that a busy machine slows all alike.

    A case that takes longer than :data:`LONG` is run in one round only, and a note names it.
    """
    left = {name: case for name, case in cases.items() if name not in grid.lost}
    long: list[str] = []
    for _ in range(rounds):
        for name, case in list(left.items()):
            started = time.monotonic()
            with grid.measuring(name):
                grid.add(name, case())
            seconds = time.monotonic() - started
            if name in grid.lost:
                del left[name]
            elif seconds > LONG and rounds > 1:
                del left[name]
                long.append(f"*{name}* ({seconds:.0f} s)")
    if long:
        grid.notes.append(f"One round only, since it takes long: {', '.join(long)}.")
    return grid


def cause(error: BaseException) -> str:
    """One line of what went wrong; what nobody foresaw is told in full on standard error."""
    if not isinstance(error, SystemExit):
        traceback.print_exception(error, file=sys.stderr)
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def timed(call: Callable[[], object]) -> float:
    """Seconds that ``call`` takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
