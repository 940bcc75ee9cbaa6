"""``deployer verify`` on a real server, with the real pip and uv."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0", requires=("some-thing",)), make_wheel("some-thing", "2.0")]) as running:
        yield running


@pytest.fixture(scope="module")
def cli(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    need_nginx()
    home = tmp_path_factory.mktemp("verify")
    (home / "tmp").mkdir()
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where pip and uv are, whoever runs deployer
    extra = {"PATH": beside, "TMPDIR": str(home / "tmp")}
    made = Cli(home=home, engine="process", upstream=upstream.simple_url, extra=extra)
    try:
        assert made.up().code == 0
        yield made
    finally:
        made.clean()


def origins(run: dict[str, Any]) -> dict[str, str]:
    return {file["name"]: file["origin"] for file in run["files"]}


def test_times_bytes_and_sources_and_nothing_is_left(cli: Cli, upstream: Upstream) -> None:
    before = upstream.files()
    done = cli.run("verify", "demo", "--json")
    assert done.code == 0, done.err
    runs = {(run["client"], run["run"]): run for run in done.data["runs"]}
    assert set(runs) == {(client, run) for client in ("pip", "uv") for run in ("first", "again", "upstream cut")}
    both = ("demo", "some-thing")
    assert origins(runs["pip", "first"]) == dict.fromkeys(both, "upstream")
    assert runs["pip", "first"]["asked"] >= 2
    for key, run in runs.items():
        if key != ("pip", "first"):
            assert origins(run) == dict.fromkeys(both, "here")
            assert run["asked"] == 0
        assert all(file["bytes"] > 0 for file in run["files"])
        assert run["seconds"] > 0
    assert upstream.files() - before == 2
    assert [note.split(":")[0] for note in done.data["notes"]] == ["uv"]
    assert (runs["pip", "first"]["through"], runs["uv", "first"]["through"]) == (
        "its files",
        "variables, as with deployer exec",
    )
    assert cli.run("offline", "status", "--json").data["offline"] is False
    assert list((cli.home / "tmp").iterdir()) == []
    assert not list(cli.home.glob(".cache/*"))


def test_a_client_that_went_past_the_index_is_found_out(cli: Cli, upstream: Upstream) -> None:
    past = {"PIP_INDEX_URL": upstream.simple_url, "UV_INDEX": upstream.simple_url}
    (cli.home / "wanted.txt").write_text("some-thing==2.0\n")
    done = cli.run("verify", "--no-cut", "-r", "wanted.txt", "--json", env=past)
    assert done.code == 9
    assert {one for run in done.data["runs"] for one in origins(run).values()} == {"past the index"}
    error = done.envelope["error"]
    assert "pip got some-thing 2.0 past" in error["message"]
    assert "PIP_INDEX_URL names another index" in error["message"]
    assert error["hint"].startswith("unset PIP_INDEX_URL")
    (cli.home / "uv.toml").write_text(f'[[index]]\nurl = "{upstream.simple_url}"\n')
    try:
        other = cli.run("verify", "--no-cut", "some-thing")
    finally:
        (cli.home / "uv.toml").unlink()
    assert other.code == 9
    assert f"uv got some-thing 2.0 past http://127.0.0.1:{cli.port}" in other.err
    assert f"{cli.home / 'uv.toml'} has its own index" in other.err


def test_what_can_not_be_downloaded_fails_with_the_words_of_the_client(cli: Cli) -> None:
    done = cli.run("verify", "no-such-project")
    assert done.code == 9
    assert "pip can't download no-such-project (first)" in done.err
    assert "No matching distribution found for no-such-project" in done.err


def test_a_download_that_fails_offline_leaves_the_server_online(cli: Cli, upstream: Upstream) -> None:
    upstream.add(make_wheel("late", "1.0"))
    # A pip whose third download fails.
    broken = cli.home / "bin"
    broken.mkdir()
    pip = Path(sys.executable).with_name("pip")
    (broken / "pip").write_text(
        f'#!/bin/sh\nif [ "$1" = download ]; then echo >>{broken}/count; fi\n'
        f'if [ "$(wc -l 2>/dev/null <{broken}/count)" = 3 ]; then exit 1; fi\nexec {pip} "$@"\n'
    )
    (broken / "pip").chmod(0o755)
    done = cli.run("verify", "late", env={"PATH": f"{broken}:{cli.extra['PATH']}"})
    assert done.code == 9, done.out
    assert "pip can't download late (upstream cut)" in done.err
    assert cli.run("offline", "status", "--json").data["offline"] is False


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--", "-x"), 2, "'-x' is no package"),
        (("-r", "absent.txt"), 2, "absent.txt is not a file"),
        (("--name", "nobody"), 5, "there is no deployment named 'nobody'"),
    ],
)
def test_bad_input(cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    done = cli.run("verify", *words)
    assert done.code == code
    assert said in done.err
