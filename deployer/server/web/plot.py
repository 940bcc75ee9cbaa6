"""Plots as data: the points of lines and the lengths of bars, which a template writes as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT = 640, 200
"""Of the drawn part, in units of the picture; a browser scales it."""
LEFT, BOTTOM, TOP = 64, 24, 8
"""Room for the words at the axes."""
_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = 4


@dataclass(frozen=True)
class Series:
    """One line. ``values``: one for each moment of its plot; None where nothing is known."""

    label: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """A drawn series: the points of each unbroken part. ``last``: its last value, in words."""

    label: str
    parts: Sequence[str]
    last: str


@dataclass(frozen=True)
class Tick:
    """A mark of an axis, at ``place`` along it."""

    place: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Lines over time. ``table``: the same as rows of words, the newest first."""

    key: str
    title: str
    lines: Sequence[Line]
    across: Sequence[Tick]
    up: Sequence[Tick]
    table: Sequence[tuple[str, Sequence[str]]]
    width: int = WIDTH + LEFT
    height: int = HEIGHT + TOP + BOTTOM
    left: int = LEFT
    bottom: int = HEIGHT + TOP


@dataclass(frozen=True)
class Bar:
    """A share of a whole. ``percent``: its length."""

    label: str
    address: str
    words: str
    percent: float


def over_time(
    key: str, title: str, moments: Sequence[float], series: Sequence[Series], words: Callable[[float], str]
) -> Plot | None:
    """A plot of values at ``moments`` (seconds since the epoch, ascending); None for less than two of them.

    ``words``: a value as people read it.
    """
    known = [value for one in series for value in one.values if value is not None]
    if len(moments) < 2 or not known:
        return None
    top = ceiling(max(known))
    span = (moments[-1] - moments[0]) or 1.0

    def x(moment: float) -> float:
        return round(LEFT + WIDTH * (moment - moments[0]) / span, 1)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (1 - min(max(value, 0.0), top) / top), 1)

    def drawn(one: Series) -> Line:
        parts: list[list[str]] = [[]]
        for moment, value in zip(moments, one.values, strict=True):
            if value is None:
                parts.append([])
            else:
                parts[-1].append(f"{x(moment)},{y(value)}")
        last = next((value for value in reversed(one.values) if value is not None), None)
        return Line(
            one.label,
            [" ".join(part if len(part) > 1 else part * 2) for part in parts if part],
            "" if last is None else words(last),
        )

    days = span > 2 * 86400
    across = [Tick(x(at), _time(at, days=days)) for at in (moments[0], moments[0] + span / 2, moments[-1])]
    up = [Tick(y(top * step / _TICKS), words(top * step / _TICKS)) for step in range(_TICKS + 1)]
    rows = [
        (_time(moment, days=days), ["–" if value is None else words(value) for value in values])
        for moment, *values in zip(moments, *(one.values for one in series), strict=True)
    ]
    return Plot(key, title, [drawn(one) for one in series], across, up, rows[::-1])


def ceiling(value: float) -> float:
    """The round number at or above ``value`` at which an axis ends."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in _STEPS if step * power >= value * 0.999), 10 * power)


def bars(rows: Sequence[tuple[str, str, float]], words: Callable[[float], str]) -> Sequence[Bar]:
    """Bars of label, address and value; the longest one has the full length."""
    most = max((value for _, _, value in rows), default=0.0) or 1.0
    return [Bar(label, address, words(value), round(100 * value / most, 1)) for label, address, value in rows]


def _time(moment: float, *, days: bool) -> str:
    found = datetime.fromtimestamp(moment, UTC)
    return found.strftime("%Y-%m-%d") if days else found.strftime("%H:%M UTC")
