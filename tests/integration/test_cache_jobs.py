"""The cache of one job given to the next: another deployment, in another home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("alpha", "beta", "gamma")
MIB = 1 << 20


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    wheels = [make_wheel(name, "1.0", files={f"{name}/data": bytes(MIB)} if name == "beta" else {}) for name in NAMES]
    with Upstream(wheels, core_metadata=True) as running:
        yield running


def job(directory: Path, upstream: Upstream) -> Cli:
    directory.mkdir()
    extra = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    cli = Cli(home=directory, engine="process", upstream=upstream.simple_url, extra=extra)
    done = cli.up("--no-pip")
    assert done.code == 0, done.err
    return cli


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    cli = job(tmp_path_factory.mktemp("jobs") / "first", upstream)
    install(cli, *NAMES)
    yield cli
    cli.clean()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    cli = job(tmp_path_factory.mktemp("jobs") / "second", upstream)
    yield cli
    cli.clean()


def install(cli: Cli, *names: str) -> None:
    for name in names:
        for file in json.loads(get(cli.port, f"/root/dev/+simple/{name}/", JSON).body)["files"]:
            assert get(cli.port, "/" + file["url"].replace("../", ""), FILE).status == 200


def lock(directory: Path, *names: str) -> Path:
    path = directory / "requirements.txt"
    path.write_text("".join(f"{name}==1.0\n" for name in names))
    return path


def downloads(upstream: Upstream) -> int:
    return upstream.files()


def test_the_next_job_downloads_nothing_and_saves_what_it_asked_for(
    first: Cli, second: Cli, upstream: Upstream, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    saved = first.run("cache", "save", str(cache), "--json").data
    assert (saved["files"], saved["dropped"], saved["changed"]) == (3, 0, True)
    assert first.run("cache", "save", str(cache), "--json").data == {**saved, "changed": False}

    before = downloads(upstream)
    restored = second.run("cache", "restore", str(cache), "--json").data
    assert (restored["restored"], restored["same"], restored["skipped"]) == (3, 0, [])
    pages = upstream.pages()
    assert second.run("cache", "restore", str(cache), "--pages", "--json").data["same"] == 3
    assert upstream.pages() == pages + 3
    install(second, "alpha", "beta")
    assert downloads(upstream) == before and upstream.pages() == pages + 3, "all of it was here"

    smaller = second.run("cache", "save", str(cache), "--json").data
    assert (smaller["files"], smaller["dropped"], smaller["changed"]) == (2, 1, True)
    assert smaller["sha256"] != saved["sha256"]
    assert second.run("bundle", "inspect", str(cache)).code == 0


def test_lock_files_and_a_size_limit_what_is_saved(first: Cli, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    requirements = lock(tmp_path, "alpha", "beta", "absent")
    words = ("cache", "save", str(cache), "-r", str(requirements), "--json")
    saved = first.run(*words).data
    assert (saved["files"], saved["dropped"], saved["missing"]) == (2, 1, ["absent==1.0"])
    limited = first.run(*words, "--max-size", "512k").data
    assert (limited["files"], limited["too_large"], limited["changed"]) == (1, 1, True)
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < MIB


def test_a_directory_of_somebody_else_is_not_touched(first: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refused = first.run("cache", "save", str(tmp_path), "--json")
    assert refused.code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert first.run("cache", "save", str(tmp_path / "notes.txt"), "--json").code == 5


def test_what_can_not_be_restored_is_a_warning(first: Cli, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert first.run("cache", "restore", str(cache), "--json").envelope["warnings"] == []
    assert first.run("cache", "save", str(cache), "-r", str(lock(tmp_path, "alpha"))).code == 0
    (blob,) = [path for path in (cache / "blobs").iterdir() if path.read_bytes()[:2] == b"PK"]
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert first.run("package", "list").code == 0
    # The server has the file, so it is not read again; another server would find the damage.
    assert first.run("cache", "restore", str(cache), "--json").data["same"] == 1
    (cache / "SHA256SUMS").unlink()
    damaged = first.run("cache", "restore", str(cache), "--json")
    assert damaged.code == 0 and "nothing restored" in damaged.envelope["warnings"][0]


def test_an_interrupted_save_is_no_cache_and_is_written_anew(first: Cli, second: Cli, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert first.run("cache", "save", str(cache)).code == 0
    (cache / ".part").touch()
    assert "nothing restored" in second.run("cache", "restore", str(cache), "--json").envelope["warnings"][0]
    assert first.run("cache", "save", str(cache), "--json").data["changed"] is True
    assert second.run("cache", "restore", str(cache), "--json").envelope["warnings"] == []
