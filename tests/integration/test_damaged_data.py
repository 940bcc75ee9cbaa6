"""A database that was torn or damaged while the server was away: rolled back, or told by each command as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contained import BOTH
from tests.engines import need
from tests.integration.cli import Cli, Done
from tests.torn import leave_hot_journal, truncate


@pytest.fixture(params=BOTH)
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(home=tmp_path, engine=request.param, upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


def in_two_lines(done: Done) -> list[str]:
    """The cause and the cure, which are all that is said of the failure."""
    said = done.err.splitlines()
    begin = next(number for number, line in enumerate(said) if line.startswith("error "))
    assert [line.split()[0] for line in said[begin:]] == ["error", "hint"], done.err
    return said[begin:]


def test_it_is_rolled_back_or_told_and_heals_with_what_is_put_back(cli: Cli) -> None:
    assert cli.up("--no-pip", "--set", "users.carol={}").code == 0
    before = cli.run("status", "--json").data
    database = cli.data / ".sqlite"

    assert cli.run("stop").code == 0
    leave_hot_journal(database)
    assert cli.run("start").code == 0
    assert cli.run("status", "--json").data["indexes"] == before["indexes"]

    assert cli.run("stop").code == 0
    whole = database.read_bytes()
    truncate(database)
    damaged = database.read_bytes()
    up = cli.up_words("--no-pip", "--set", "users.carol={}")
    for words in (("start",), ("status",), up, ("restart",), (*up, "--set", "server.threads=9")):
        done = cli.run(*words)
        assert done.code == 9, (words, done.err)
        cause, cure = in_two_lines(done)
        assert ".sqlite is damaged" in cause
        assert "backup" in cure
    assert database.read_bytes() == damaged

    assert cli.run("stop").code == 0
    database.write_bytes(whole)
    assert cli.run(*up).code == 0
    after = cli.run("status", "--json").data
    assert (after["server_uuid"], after["indexes"]) == (before["server_uuid"], before["indexes"])
