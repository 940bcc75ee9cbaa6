"""A process that stands by is taken for exactly its own command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deployer.engines import standby
from deployer.host.runner import telling
from deployer.operations import ahead
from deployer.plan.data import data_path

WAITING = (sys.executable, "-S", "-c", "input()")


def test_it_is_taken_once(tmp_path: Path) -> None:
    standby.begin(WAITING, env={}, errors_to=tmp_path / "log")
    first, second = (standby.take(WAITING, env={}, errors_to=tmp_path / "log") for _ in range(2))
    for process in (first, second):
        with telling(process, "go") as pid:
            assert pid == process.pid
    assert first.pid != second.pid


@pytest.mark.parametrize(("argv", "env"), [((*WAITING, "more"), {}), (WAITING, {"A": "1"})])
def test_another_command_ends_it(argv: tuple[str, ...], env: dict[str, str], tmp_path: Path) -> None:
    begun = standby.begin(WAITING, env={}, errors_to=tmp_path / "log")
    taken = standby.take(argv, env=env, errors_to=tmp_path / "log")
    assert taken.pid != begun.pid
    assert begun.returncode is not None
    with telling(taken, "go"):
        pass


def test_one_that_ended_is_started_again(tmp_path: Path) -> None:
    begun = standby.begin(WAITING, env={}, errors_to=tmp_path / "log")
    begun.kill()
    begun.communicate()
    with telling(standby.take(WAITING, env={}, errors_to=tmp_path / "log"), "go") as pid:
        assert pid != begun.pid


@pytest.mark.parametrize("name", ["devpi", "job-1"])
def test_data_that_is_thrown_away_is_where_the_plan_puts_it(name: str) -> None:
    assert ahead.thrown_away(name) == str(data_path("temp", name=name, home=Path("/home/me"), uid=os.getuid()))
