"""Packages of a directory, a pypiserver, a bandersnatch mirror and a plain devpi become the uploads of a stage."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.indexed_server import JSON, get, upload
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi, free_port, init
from tests.server_process import PATIENCE, auth_header, login, request
from tests.upstream import Distribution, Faults, Upstream, make_sdist, make_wheel

pytestmark = pytest.mark.server

FILES = (
    *(make_wheel(name, version) for name in ("alpha", "beta-core") for version in ("1.0", "2.0")),
    make_sdist("alpha", "1.0"),
)
NAMES = sorted(one.filename for one in FILES)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("public", "1.0")]) as running:
        yield running


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    cli = Cli(home=tmp_path_factory.mktemp("home"), engine="process", upstream=upstream.simple_url)
    try:
        done = cli.up("--no-pip")
        assert done.code == 0, done.err
        yield cli
    finally:
        cli.clean()


@pytest.fixture
def stage(deployment: Cli, request: pytest.FixtureRequest) -> str:
    """A stage of the test's own."""
    name = f"root/s{abs(hash(request.node.nodeid)) % 10**8}"
    done = deployment.run("index", "create", name, "volatile=false")
    assert done.code == 0, done.err
    return name


def fill(directory: Path, files: tuple[Distribution, ...] = FILES) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for one in files:
        (directory / one.filename).write_bytes(one.content)
    return directory


def adopt(cli: Cli, source: Path | str, stage: str, *words: str, code: int = 0) -> dict[str, Any]:
    done = cli.run("adopt", str(source), "--index", stage, "--json", *words)
    assert done.code == code, done.out + done.err
    return done.data


def served(cli: Cli, stage: str) -> dict[str, str]:
    """The files of the stage, as pip sees them, with their hashes."""
    found = {}
    for project in cli.run("package", "list", "--index", stage, "--json").data["projects"]:
        for file in json.loads(get(cli.port, f"/{stage}/+simple/{project}/", JSON).body)["files"]:
            found[file["filename"]] = file["hashes"]["sha256"]
    return found


ALL = {one.filename: one.sha256 for one in FILES}


def test_a_directory_is_adopted_once(deployment: Cli, stage: str, tmp_path: Path) -> None:
    where = fill(tmp_path / "wheels")
    fill(where / "below", FILES[:1])  # the same file twice
    (where / "index.html").write_text("<html>")
    told = adopt(deployment, where, stage, "--dry-run")
    assert (sorted(told["new"]), told["uploaded"], served(deployment, stage)) == (NAMES, [], {})
    told = adopt(deployment, where, stage)
    assert (sorted(told["uploaded"]), told["same"]) == (NAMES, [])
    assert told["bytes"] == sum(len(one.content) for one in FILES)
    assert served(deployment, stage) == ALL
    told = adopt(deployment, where, stage)
    assert (told["uploaded"], sorted(told["same"])) == ([], NAMES)


def test_a_conflict_is_shown_before_anything_is_uploaded(deployment: Cli, stage: str, tmp_path: Path) -> None:
    adopt(deployment, fill(tmp_path / "first", FILES[:1]), stage)
    other = make_wheel("alpha", "1.0", files={"alpha/extra.py": "changed = True\n"})
    where = fill(tmp_path / "second", (other, *FILES[1:]))
    for words in ((), ("--dry-run",)):
        told = adopt(deployment, where, stage, *words, code=5)
        (line,) = told["conflicts"]
        assert other.filename in line and told["uploaded"] == []
        assert served(deployment, stage) == {FILES[0].filename: FILES[0].sha256}
    fill(where / "below", FILES[:1])
    (line,) = adopt(deployment, where, stage, code=5)["conflicts"]
    assert "differs" in line and "below" in line


def test_what_is_no_distribution_is_named_and_left_out(deployment: Cli, stage: str, tmp_path: Path) -> None:
    where = fill(tmp_path / "wheels")
    good = FILES[0]
    (where / "gamma-1.0-py3-none-any.whl").write_bytes(b"no archive")
    (where / "delta-1.0-py3-none-any.whl").write_bytes(good.content)  # of another project
    (where / "old-1.0-py2.7.egg").write_bytes(b"")
    (where / "epsilon-1.0.tar.gz").write_bytes(FILES[-1].content[:50])
    done = deployment.run("adopt", str(where), "--index", stage, "--json")
    assert done.code == 9
    assert len(done.data["invalid"]) == 4
    assert done.envelope["error"]["details"]
    assert served(deployment, stage) == ALL


def test_a_run_that_was_killed_goes_on(deployment: Cli, stage: str, tmp_path: Path) -> None:
    many = tuple(make_wheel("many", f"1.{number}") for number in range(40))
    where = fill(tmp_path / "many", many)
    words = deployment.argv("adopt", str(where), "--index", stage)
    killed = subprocess.Popen(words, env=deployment.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while len(served(deployment, stage)) < 3:
        assert time.monotonic() < deadline and killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = served(deployment, stage)
    told = adopt(deployment, where, stage)
    assert len(told["same"]) >= len(before)
    assert served(deployment, stage) == {one.filename: one.sha256 for one in many}


@pytest.fixture
def pypiserver(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    where = fill(tmp_path / "packages")
    command = [sys.executable, "-m", "pypiserver", "run", "-p", str(port), "-i", "127.0.0.1"]
    command += ["--disable-fallback", str(where)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert get(port, "/simple/", {}).status == 200
                break
            except OSError:
                assert time.monotonic() < deadline and running.poll() is None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


def test_a_pypiserver_is_adopted(deployment: Cli, stage: str, pypiserver: str) -> None:
    assert sorted(adopt(deployment, f"{pypiserver}/simple/", stage)["uploaded"]) == NAMES
    assert served(deployment, stage) == ALL
    # Its own address works, too, and nothing is sent twice.
    told = adopt(deployment, pypiserver, stage)
    assert (told["uploaded"], sorted(told["same"])) == ([], NAMES)


def test_a_bandersnatch_mirror_is_adopted(deployment: Cli, stage: str, tmp_path: Path) -> None:
    """As bandersnatch lays it out: pages in web/simple, files by their BLAKE2 in web/packages."""
    web = tmp_path / "mirror/web"
    for number, one in enumerate(FILES):
        fill(web / f"packages/{number:02x}/{number:02x}/{number:060x}", (one,))
        page = web / f"simple/{one.project}/index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html>")
    assert sorted(adopt(deployment, tmp_path / "mirror", stage)["uploaded"]) == NAMES
    assert served(deployment, stage) == ALL


def test_an_index_of_a_plain_devpi_is_adopted(deployment: Cli, stage: str, tmp_path: Path, upstream: Upstream) -> None:
    serverdir = tmp_path / "plain"
    init(serverdir)
    plain = PlainDevpi(serverdir)
    plain.start()
    try:
        auth = _auth(plain)
        mirror = {"type": "mirror", "mirror_url": upstream.simple_url}
        for index, body in (("root/up", mirror), ("root/prod", {"type": "stage", "bases": ["root/up"]})):
            assert request(plain.port, "PUT", f"/{index}", body=body, headers=auth)[0] == 200
        for one in FILES:
            assert upload(plain, auth, "root/prod", one) == 200
        upstream.forget()
        told = adopt(deployment, f"{plain.url}/root/prod/+simple/", stage)
        assert sorted(told["uploaded"]) == NAMES
        assert served(deployment, stage) == ALL
        assert upstream.lists == 0
        assert sorted(adopt(deployment, f"{plain.url}/root/prod", stage)["same"]) == NAMES
        done = deployment.run("adopt", plain.url, "--index", stage)
        assert done.code == 2 and "root/prod" in done.err
        assert deployment.run("adopt", f"{plain.url}/root/up", "--index", stage).code == 11
        assert upstream.lists == 0
    finally:
        plain.stop()


def _auth(plain: PlainDevpi) -> dict[str, str]:
    return auth_header(login(plain.port, plain.password)[1]["result"]["password"])


def test_a_public_index_is_refused_without_a_request(deployment: Cli, stage: str, upstream: Upstream) -> None:
    upstream.forget()
    for url in (upstream.simple_url, upstream.url, f"{upstream.simple_url}public/"):
        done = deployment.run("adopt", url, "--index", stage)
        assert done.code == 11, done.err
    pip = {"PIP_INDEX_URL": "http://index.example.com/simple"}
    assert deployment.run("adopt", "http://index.example.com/simple/", "--index", stage, env=pip).code == 11
    assert upstream.requests == ()


def test_other_servers_are_not_asked_and_wrong_content_is_left_out(
    deployment: Cli, stage: str, upstream: Upstream
) -> None:
    elsewhere = f"{upstream.url}/files/public-1.0-py3-none-any.whl"
    upstream.forget()
    with Upstream([*FILES, make_wheel("gamma", "1.0")], elsewhere={"gamma-1.0-py3-none-any.whl": elsewhere}) as other:
        (line,) = adopt(deployment, other.simple_url, stage, code=9)["invalid"]
        assert "another server" in line
        assert served(deployment, stage) == ALL
        assert upstream.requests == ()
        other.redirects["/simple/"] = upstream.simple_url
        assert deployment.run("adopt", other.simple_url, "--index", stage).code == 7
        assert upstream.requests == ()
    faults = Faults(wrong_hash=True)
    with Upstream([make_wheel("delta", "1.0")], faults=faults) as lying:
        (line,) = adopt(deployment, lying.simple_url, stage, code=9)["invalid"]
        assert "checksum mismatch" in line
        assert served(deployment, stage) == ALL


def test_wrong_words_have_one_line_each(deployment: Cli, stage: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    port = free_port()
    for source, index, code in (
        (str(empty), stage, 2),
        (str(tmp_path / "none"), stage, 2),
        (str(empty), "root/pypi", 11),
        (str(empty), "root/none", 7),
        (f"http://127.0.0.1:{port}/", stage, 7),
        ("http://", stage, 2),
    ):
        done = deployment.run("adopt", source, "--index", index)
        assert done.code == code, (source, done.err)
        assert [line.partition(" ")[0] for line in done.err.splitlines()] == ["error", "hint"], done.err


def test_the_page_is_right_line_by_line(tmp_path: Path, upstream: Upstream) -> None:
    """ "Moving from a folder of wheels", as somebody would type it."""
    page = (Path(__file__).parents[2] / "docs/how-to/adopt.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).splitlines()
    assert len(lines) == 5
    fill(tmp_path / "wheels", (make_wheel("acme-core", "1.0"), *FILES))
    cli = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url, name="devpi", extra={})
    here = {"DEPLOYER_ENGINE": "process", "DEPLOYER_PORT": str(cli.port), "DEPLOYER_UPSTREAM": cli.upstream}
    env = {**cli.env, **here, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    try:
        for line in lines:
            words = ["bash", "-c", line]
            done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert list((tmp_path / "app").rglob("acme_core.py"))
        assert set(ALL) <= set(served(cli, "root/dev"))
    finally:
        cli.clean()
