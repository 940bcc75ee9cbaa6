"""The arithmetic of the benchmarks' tables."""

from __future__ import annotations

import pytest

from benchmarks.measure import Goal, Grid, number, spread, summary


def grid() -> Grid:
    made = Grid(title="Speed", columns=("s", "failed"), base="base", ratios=("s",))
    for ours, base in ((2.0, 1.0), (6.0, 2.0), (8.0, 8.0)):
        made.add("base", {"s": base, "failed": 0})
        made.add("ours", {"s": ours, "failed": 0})
    return made


def test_ratios_are_of_the_same_round() -> None:
    assert grid().ratio("ours", "s") == [2, 3, 1]
    assert grid().ratio("ours", "s", "base", "ours") == [2 / 3, 6 / 8, 8 / 16]


def test_a_cell_has_the_median_the_spread_and_the_median_ratio() -> None:
    text = grid().text()
    assert "| ours | 6 (2–8) ×2 | 0 |" in text
    assert "| base | 2 (1–8) | 0 |" in text


def test_a_column_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        grid().add("ours", {"seconds": 1})


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert Goal(number=1, what="x", values=(), limit=1).verdict == "not measured"


@pytest.mark.parametrize(
    ("values", "more", "verdict"),
    [
        ([1.0, 1.0, 9.0], {}, "reached"),
        ([1.0, 1.0, 9.0], {"worst": True}, "**not reached**"),
        ([1.0, 3.0, 3.0], {}, "**not reached**"),
        ([1.0, 3.0, 3.0], {"at_least": True}, "reached"),
        ([1.0, 3.0, 3.0], {"at_least": True, "worst": True}, "**not reached**"),
    ],
)
def test_a_goal_is_held_by_the_median_or_by_the_worst(values: list[float], more: dict, verdict: str) -> None:
    assert Goal(number=1, what="x", values=values, limit=2, **more).verdict == verdict


def test_goals_are_told_in_their_order() -> None:
    goals = [Goal(number=count, what=f"goal {count}", values=[1], limit=1) for count in (3, 1)]
    text = summary(goals)
    assert text.index("goal 1") < text.index("goal 3")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.0, "1"), (1.234, "1.23"), (123.4, "123"), (9999, "9999"), (12345, "12.3k")],
)
def test_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_of_one_value_is_that_value() -> None:
    assert spread([2, 2]) == "2"
    assert spread([1, 2, 3]) == "2 (1–3)"
