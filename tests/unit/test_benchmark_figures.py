"""The arithmetic of the benchmarks' tables."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import alone, checked_out, table
from benchmarks.deployment import LOWEST_PORT, free_port
from benchmarks.measure import Goal, Grid, in_turns, number, spread, summary


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


def test_a_case_that_fails_costs_its_own_row() -> None:
    made = Grid(title="Speed", columns=("s",), base="base")
    rounds = iter((1.0, None))

    def lame() -> dict[str, float]:
        if (seconds := next(rounds)) is None:
            raise SystemExit("it fell over\nand more")
        return {"s": seconds}

    in_turns(made, {"lame": lame, "base": lambda: {"s": 2.0}}, rounds=3)
    assert made.of("base", "s") == [2, 2, 2]
    assert made.ratio("lame", "s") == []
    assert "*lame* was not measured: it fell over" in made.text()
    in_turns(made, {"lame": lambda: {"s": 1.0}, "base": lambda: {"s": 2.0}}, rounds=1)
    assert made.of("lame", "s") == []


def test_a_case_that_takes_too_long_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure.LONG", 0.0)
    made = Grid(title="Speed", columns=("s",))
    in_turns(made, {"slow": lambda: {"s": 2.0}}, rounds=3)
    assert made.of("slow", "s") == [2]
    assert "One round only, since it takes long: *slow* (0 s)." in made.text()


@pytest.mark.parametrize("error", [SystemExit("no nginx"), ValueError("no nginx"), KeyError("no nginx")])
def test_a_table_that_fails_leaves_a_line_in_its_place(error: BaseException) -> None:
    def fail(_bench: object) -> list[Grid]:
        raise error

    (text,), goals = table(fail, None, "cold")  # type: ignore[arg-type]
    assert text.startswith("## cold\n\nNot measured: ") and "no nginx" in text
    assert not goals


def test_whoever_interrupts_is_obeyed() -> None:
    def interrupted() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turns(Grid(title="", columns=()), {"case": interrupted}, rounds=1)


def test_one_benchmark_at_a_time_has_a_cache(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "cache"),
        pytest.raises(SystemExit, match="another benchmark runs"),
        alone(tmp_path / "cache"),
    ):
        pass
    with alone(tmp_path / "cache"):
        pass


def test_a_port_is_none_that_connections_are_given() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest <= LOWEST_PORT:
        pytest.skip("connections are given any port on this host")
    assert LOWEST_PORT <= free_port() < lowest


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_results_that_were_just_written_do_not_make_the_commit_another(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        known = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", *known, *words], cwd=tmp_path, text=True).strip()

    assert checked_out(tmp_path) == "unknown"
    git("init", "--quiet")
    results, code = tmp_path / "benchmarks/RESULTS.md", tmp_path / "code.py"
    results.parent.mkdir()
    for file in (results, code):
        file.write_text("old\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "Begin")
    commit = git("rev-parse", "--short", "HEAD")
    assert checked_out(results.parent) == commit
    results.write_text("new\n")
    assert checked_out(results.parent) == commit
    code.write_text("new\n")
    assert checked_out(results.parent) == f"{commit}-dirty"


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
