"""`deployer mirror refresh` on a real server: clients get the new pages, and `doctor` names deleted projects."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.contained import BOTH
from tests.engines import need
from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, request
from tests.upstream import Upstream, make_wheel


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in ("alpha", "beta")]) as running:
        yield running


@pytest.fixture(params=BOTH)
def cli(request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream) -> Iterator[Cli]:
    need(request.param)
    found = Cli(home=tmp_path, engine=request.param, network="host", upstream=upstream.simple_url)
    try:
        yield found
    finally:
        found.clean()


def files(cli: Cli, project: str) -> list[str]:
    """The files on the page of clients; none when there is no such project."""
    answer = get(cli.port, f"/root/dev/+simple/{project}/", JSON)
    if answer.status == 404:
        return []
    assert answer.status == 200, answer.body
    return [file["filename"] for file in json.loads(answer.body)["files"]]


def deleted(cli: Cli) -> dict[str, object]:
    """What the server tells of deleted projects, once it has settled after a start."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = dict(request(cli.port, "GET", "/+deployer")[1]["deleted"])
        if found["count"] or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_clients_get_at_once_what_the_upstream_has_now(cli: Cli, upstream: Upstream) -> None:
    assert cli.up("--no-pip").code == 0
    new, old = make_wheel("alpha", "2.0"), make_wheel("alpha", "1.0")
    assert files(cli, "alpha") == [old.filename]
    assert len(files(cli, "beta")) == 1
    upstream.add(new)
    assert files(cli, "alpha") == [old.filename]  # until the page expires

    done = cli.run("mirror", "refresh", "root/pypi", "Alpha")
    assert (done.code, done.out.splitlines()[:2]) == (0, ["changed: 1 (root/pypi/alpha)", "unchanged: 0"])
    assert sorted(files(cli, "alpha")) == sorted([old.filename, new.filename])

    told = cli.run("mirror", "refresh", "--json")
    assert told.data == {"mirrors": ["root/pypi"], "changed": [], "unchanged": 2, "gone": [], "unanswered": []}

    upstream.faults.status = 503
    done = cli.run("mirror", "refresh", "root/pypi", "--json")
    assert (done.code, done.data["unanswered"]) == (7, ["root/pypi/alpha", "root/pypi/beta"])
    assert done.envelope["error"]["message"] == "no answer from the upstream of root/pypi"
    assert len(files(cli, "alpha")) == 2


def test_what_cannot_be_refreshed_is_told_in_two_lines(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    for words, code, cause, cure in (
        (("root/dev",), 7, "root/dev is a stage index, not a mirror", "deployer index list --type mirror"),
        (("root/pypo",), 7, "there is no index root/pypo", "did you mean 'root/pypi'?"),
        (("root/pypi", "no/name"), 2, "'no/name' can't be a project's name", "letters, digits"),
    ):
        done = cli.run("mirror", "refresh", *words)
        error, hint = done.err.splitlines()
        assert (done.code, done.out) == (code, "")
        assert cause in error and cure.removeprefix("deployer ") in hint.replace(f" --name {cli.name}", "")
    assert cli.run("offline", "on").code == 0
    done = cli.run("mirror", "refresh")
    assert (done.code, "deployer offline off" in done.err.replace(f" --name {cli.name}", "")) == (5, True)


def test_a_project_that_the_upstream_deleted_is_told_and_can_be_kept(cli: Cli, upstream: Upstream) -> None:
    assert cli.up("--no-pip").code == 0
    page = json.loads(get(cli.port, "/root/dev/+simple/alpha/", JSON).body)
    address = urljoin("/root/dev/+simple/alpha/", page["files"][0]["url"])
    assert get(cli.port, address, FILE).status == 200
    upstream.distributions = [known for known in upstream.distributions if known.project != "alpha"]

    assert cli.run("mirror", "refresh", "root/pypi", "alpha", "--json").data["gone"] == ["root/pypi/alpha"]
    assert files(cli, "alpha") == []
    assert get(cli.port, address, FILE).status == 200
    (check,) = [one for one in cli.run("doctor", "--json").data["checks"] if one["name"] == "mirrors"]
    assert (check["level"], "root/pypi/alpha" in check["evidence"]) == ("warning", True)
    assert "server.keep_deleted=true" in check["cure"]

    assert cli.run("restart").code == 0
    assert files(cli, "alpha") == []

    assert cli.up("--no-pip", "--set", "server.keep_deleted=true").code == 0
    assert files(cli, "alpha") == [page["files"][0]["filename"]]
    assert deleted(cli) == {"count": 1, "projects": ["root/pypi/alpha"], "kept": True}  # it was found on the disk
    upstream.add(make_wheel("alpha", "1.1"))
    assert cli.run("mirror", "refresh", "root/pypi", "--json").data["changed"] == ["root/pypi/alpha"]
    assert request(cli.port, "GET", "/+deployer")[1]["deleted"]["count"] == 0


def test_another_upstream_is_told_and_its_pages_are_used(cli: Cli, upstream: Upstream) -> None:
    assert cli.up("--no-pip").code == 0
    assert files(cli, "alpha") == [make_wheel("alpha", "1.0").filename]
    with Upstream([make_wheel("alpha", "3.0")]) as other:
        cli.upstream = other.simple_url
        said = f"root/pypi: mirrors {other.simple_url} instead of {upstream.simple_url}; "
        said += f"pages of {upstream.simple_url} are no longer used"
        planned = cli.run("plan", *cli.up_words("--json")[1:])
        assert any(said in line for line in planned.data["steps"]["indexes"])
        done = cli.up("--no-pip")
        assert (done.code, said in done.err) == (0, True)
        assert files(cli, "alpha") == [make_wheel("alpha", "3.0").filename]
