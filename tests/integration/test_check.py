"""`deployer check` finds what is wrong with the data while the server serves, and repairs without deleting."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.engines import need
from tests.indexed_server import FILE, HTML, JSON, get
from tests.integration.cli import Cli
from tests.integration.test_backup import ROOT, WHEEL, upload
from tests.integration.test_crash import crash, effects, points
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server
CACHED = make_wheel("cached", "1.0")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([CACHED]) as serving:
        yield serving


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    need("process")
    made = Cli(
        home=tmp_path_factory.mktemp("checked"),
        engine="process",
        upstream=upstream.simple_url,
        extra={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        assert made.up("--no-pip").code == 0
        upload(made)
        assert get(made.port, cached(made), FILE).body == CACHED.content
        wait_for(made.data / f"+files{cached(made)}")
        yield made
    finally:
        made.clean()


def cached(cli: Cli) -> str:
    page = "/root/pypi/+simple/cached/"
    (file,) = json.loads(get(cli.port, page, JSON).body)["files"]
    return urljoin(page, file["url"]).partition("#")[0]


def found(cli: Cli, *words: str, code: int = 9) -> list[tuple[str, str, str]]:
    done = cli.run("check", *words, "--json")
    assert done.code == code, done.out
    return sorted((one["kind"], one["path"].rpartition("/")[2], one["done"]) for one in done.data["findings"])


def one(cli: Cli, pattern: str) -> Path:
    return next(cli.data.glob(f"+files/{pattern}"))


def wait_for(file: Path) -> None:
    """A fetched file is stored just after its client has it."""
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_whole_data_has_no_findings(cli: Cli) -> None:
    done = cli.run("check", "--json", "--rate", "0")
    assert (done.code, done.data["findings"], done.data["files"]) == (0, [], 2)
    assert done.data["database"]["bytes"] == (cli.data / ".sqlite").stat().st_size
    journal = (cli.data / ".deployer/checks.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["files"] == 2
    doctor = {check["name"]: check for check in cli.run("doctor", "--json").data["checks"]}
    assert (doctor["database"]["level"], "unused" in doctor["database"]["evidence"]) == ("ok", True)


def test_a_mirrors_file_is_fetched_again(cli: Cli, upstream: Upstream) -> None:
    before, file = upstream.files(), one(cli, "root/pypi/**/cached-*")
    file.write_bytes(b"damaged")
    assert found(cli) == [("damaged", file.name, "")]
    assert [kind for kind, _, done in found(cli, "--repair", code=0) if done] == ["damaged"]
    assert get(cli.port, cached(cli), FILE).body == CACHED.content
    assert upstream.files() == before + 1
    wait_for(file)
    file.unlink()
    assert found(cli) == [("missing", file.name, "")]
    assert get(cli.port, cached(cli), FILE).body == CACHED.content
    wait_for(file)
    assert found(cli, code=0) == []


def test_an_upload_is_reported_until_a_backup_has_it(cli: Cli) -> None:
    backups = str(cli.home / "backups")
    assert cli.run("backup", "create", "--directory", backups).code == 0
    file = one(cli, "root/dev/**/mine-*")
    content = file.read_bytes()
    for damage in (b"damaged", b""):
        if damage:
            file.unlink()  # the backup has a link to it
            file.write_bytes(damage)
        else:
            file.unlink()
        assert [done for _, _, done in found(cli, "--repair")] == [""]
        assert [done for _, _, done in found(cli, "--repair", "--backups", backups, code=0)] == [
            "taken from the backups"
        ]
        assert file.read_bytes() == content
    assert found(cli, code=0) == []


def test_unknown_files_and_damaged_pages_are_set_aside(cli: Cli) -> None:
    orphan, young = cli.data / "+files/root/dev/+f/abc/orphan.whl", cli.data / "+files/root/dev/+f/abc/young.whl"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"orphan")
    young.write_bytes(b"of an upload under way")
    os.utime(orphan, (time.time() - 7200,) * 2)
    page = cli.data / ".deployer/upstream/root/pypi/cached"
    page.write_bytes(page.read_bytes()[:-2] + b"x\n")
    assert [kind for kind, _, _ in found(cli)] == ["orphan", "page"]
    assert len(found(cli, "--repair", code=0)) == 2
    assert not orphan.exists()
    assert young.exists()
    assert next(cli.data.glob(".deployer/set-aside/*/root/dev/+f/abc/orphan.whl")).read_bytes() == b"orphan"
    shutil.rmtree(orphan.parent)
    assert found(cli, code=0) == []


def test_served_pages_that_differ_from_the_database_are_set_aside(cli: Cli) -> None:
    asked = "/root/dev/+simple/mine/"
    page = cli.data / ".deployer/pages/root/dev/mine"

    def stored() -> bytes:
        for accept in (JSON, HTML, JSON, HTML):  # the first one finds that the page is gone
            body = get(cli.port, asked, accept).body
        wait_for(page / "json")
        wait_for(page / "html")
        return body

    def tamper(name: str, old: bytes, new: bytes) -> None:
        content = (page / name).read_bytes().replace(old, new)
        (page / name).write_bytes(content)
        (page / f"{name}.gz").write_bytes(gzip.compress(content))

    stored()
    assert found(cli, code=0) == []
    for name, old, new in (
        ("json", WHEEL.sha256.encode(), b"0" * 64),
        ("json", WHEEL.filename.encode(), b"gone-1.0-py3-none-any.whl"),
        ("html", b"<a ", b"<b "),
    ):
        tamper(name, old, new)
        assert found(cli) == [("served", "mine", "")], name
        assert found(cli, "--repair", code=0) == [("served", "mine", "set aside; the server makes it anew")]
        assert WHEEL.sha256.encode() in stored()
        assert found(cli, code=0) == []
    of_nobody = cli.data / ".deployer/pages/root/none/mine"
    shutil.copytree(page, of_nobody)
    assert found(cli, "--repair", code=0) == [("served", "mine", "set aside; the server makes it anew")]
    assert not of_nobody.exists()
    assert len(list(cli.data.glob(".deployer/set-aside/*/pages/root/*/mine"))) == 4
    journal = (cli.data / ".deployer/checks.jsonl").read_text().splitlines()
    assert [one["why"] for one in json.loads(journal[-1])["findings"]] == ["there is no index root/none"]


def test_the_database_is_compacted(cli: Cli) -> None:
    before = cli.run("status", "--json").data
    done = cli.run("compact", "--json")
    assert done.code == 0, done.out
    assert done.data["after_bytes"] == (cli.data / ".sqlite").stat().st_size <= done.data["before_bytes"]
    after = cli.run("status", "--json").data
    assert (after["ready"], after["server_uuid"], after["indexes"]) == (True, before["server_uuid"], before["indexes"])
    assert found(cli, code=0) == []
    assert not list(cli.data.glob("*.compact"))


def test_a_kill_at_any_step_of_a_compaction_leaves_a_server_that_the_next_one_starts(cli: Cli) -> None:
    moments = [point for point in points(effects(cli, ("compact",))) if "site-packages" not in point.effect]
    for moment in moments[:: max(1, len(moments) // 3)]:
        crash(cli, moment, "SIGKILL", ("compact",))
        healed = cli.run("compact", "--json")
        assert healed.code == 0, (moment, healed.out)
        assert cli.run("status", "--json").data["ready"] is True
    assert found(cli, code=0) == []
    assert not list((cli.home / "state").rglob("compacting"))
