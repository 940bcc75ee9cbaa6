"""Cases run in turns, and their ratios, paired round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Samples = Mapping[str, Sequence[float]]
"""Of each case, its seconds in each round."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """``of`` divided by the sum of ``to``, cases or figures by name; ``goal`` is the most that it should be."""

    name: str
    of: str
    to: tuple[str, ...]
    goal: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one suite found. ``bounds``: figures that have a goal of their own, with their unit."""

    title: str
    samples: Samples
    ratios: Sequence[Ratio] = ()
    bounds: Sequence[tuple[str, float, float, str]] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def text(self) -> str:
        """The report as Markdown."""
        lines = [f"## {self.title}", "", "| case | median ms | min | max |", "|---|---|---|---|"]
        for name, seconds in self.samples.items():
            middle, low, high = (1000 * value for value in spread(seconds))
            lines.append(f"| {name} | {middle:.0f} | {low:.0f} | {high:.0f} |")
        if self.ratios or self.bounds:
            lines += ["", "| figure | median | min | max | goal | |", "|---|---|---|---|---|---|"]
        for ratio in self.ratios:
            middle, low, high = spread(paired(self.samples, ratio))
            met = "met" if middle <= ratio.goal else "missed"
            lines.append(f"| {ratio.name} | {middle:.2f} | {low:.2f} | {high:.2f} | ≤ {ratio.goal:g} | {met} |")
        for name, value, goal, unit in self.bounds:
            met = "met" if value <= goal else "missed"
            lines.append(f"| {name} | {value:.4g} {unit} | | | ≤ {goal:g} {unit} | {met} |")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    return statistics.median(values), min(values), max(values)


def paired(samples: Samples, ratio: Ratio) -> list[float]:
    """The ratio of each round."""
    below = [sum(parts) for parts in zip(*(samples[name] for name in ratio.to), strict=True)]
    return [above / under for above, under in zip(samples[ratio.of], below, strict=True)]


def in_turns(cases: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Run every case once a round; a case returns its own seconds. A first round warms caches and is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            seconds = case()
            if number:
                samples[name].append(seconds)
    return samples


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """``call`` as a case: how long it takes."""

    def case() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return case
