"""An upgrade from devpi-server 6 to 7 beside the running server, and the way back: a process and a container."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
import yaml

from tests.engines import BASE, need
from tests.indexed_server import upload
from tests.integration.cli import Cli
from tests.own_image import alone
from tests.server_process import PATIENCE, auth_header, login, request
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = [pytest.mark.timeout(900)]

LOCKED = 75
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}


@dataclass
class Deployment:
    """``old``: the command line that deployed it; ``new``: the one of the next version, of the same home.

    ``uploaded``: what the server has acknowledged; ``failed``: the answers to other uploads.
    """

    old: Cli
    new: Cli
    upstream: Upstream
    auth: dict[str, str] = field(default_factory=dict)
    uploaded: list[Distribution] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def upload(self, name: str, version: str) -> bool:
        wheel = make_wheel(name, version)
        try:
            status = upload(self.old, self.auth, "root/dev", wheel)
        except (OSError, HTTPException) as error:
            status = f"{error}"
        if status == 200:
            self.uploaded.append(wheel)
        else:
            self.failed.append(f"{wheel.filename}: {status}")
        return status == 200

    @property
    def lacking(self) -> list[str]:
        """The uploads that the server acknowledged, and has not, byte for byte."""
        links: dict[str, str] = {}
        for project in {wheel.project for wheel in self.uploaded}:
            _, page = request(self.old.port, "GET", f"/root/dev/+simple/{project}/", headers=JSON)
            links |= {file["filename"]: file["url"] for file in page["files"]} if isinstance(page, dict) else {}
        return [wheel.filename for wheel in self.uploaded if self._got(links.get(wheel.filename)) != wheel.content]

    def _got(self, url: str | None) -> bytes:
        if url is None:
            return b""
        with urlopen(urljoin(f"{self.old.url}/root/dev/+simple/x/", url), timeout=60) as answer:
            return bytes(answer.read())


PAGE = Path(__file__).parents[2] / "docs/how-to/upgrade.md"


def on_page() -> list[str]:
    """The commands of the page, in its order."""
    return re.findall(r"^deployer (.+)$", PAGE.read_text(), re.MULTILINE)


def topology(url: str) -> dict[str, Any]:
    return {
        "users": {"dev": {"email": "dev@example.com", "title": "Developers"}},
        "indexes": {
            "root/pypi": {"type": "mirror", "url": url, "cache_expiry": 61},
            "root/dev": {"type": "stage", "bases": ["root/pypi"], "volatile": True, "mirror_whitelist": ["*"]},
            "dev/main": {
                "type": "ordered",
                "bases": ["root/dev", "root/pypi"],
                "owns": ["main-*"],
                "acl_upload": ["dev"],
            },
        },
    }


@contextmanager
def running(
    request: pytest.FixtureRequest, engine: str, home: Path, public: Sequence[Distribution] = ()
) -> Iterator[Deployment]:
    need(engine)
    home.chmod(0o755)
    profile = home / "team.yaml"
    extra = {"DEPLOYER_PROFILE": str(profile), "DEPLOYER_BASE_IMAGE": ""}  # the base is in the profile
    cli = Cli(home=home, engine=engine, extra=extra)
    new = Cli(home=home, engine=engine, extra=cli.extra, port=cli.port, name=cli.name)
    if engine == "process":
        new.python = request.getfixturevalue("python7")
    with Upstream(list(public) or [make_wheel("demo", "1.0"), make_wheel("demo", "1.1")]) as upstream:
        place = {"engine": engine, "data": str(cli.data), "image": {"base": BASE}}
        network = {"port": cli.port, "mode": "host"}
        whole = {"extends": "default", **topology(upstream.simple_url), **place, "network": network}
        profile.write_text(yaml.safe_dump(whole))
        try:
            up = cli.run("up", "--no-pip", timeout=900)
            assert up.code == 0, up.err
            password = cli.run("secret", "show").out.strip()
            auth = auth_header(login(cli.port, password)[1]["result"]["password"])
            yield Deployment(cli, new, upstream, auth)
        finally:
            (new if (cli.data / ".sqlite_alchemy").exists() else cli).clean()


@pytest.fixture(
    params=[
        pytest.param("process", marks=pytest.mark.server),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with running(request, request.param, tmp_path) as made:
        yield made


def test_6_to_7_and_back(deployment: Deployment) -> None:
    old, new = deployment.old, deployment.new
    assert all(deployment.upload("mine", version) for version in ("1.0", "1.1"))
    assert old.run("package", "download", "demo", "--index", "root/pypi", "-d", "down").code == 0
    before = old.run("status", "--json").data

    plan_words, upgrade_words, back_words, again_words = (words.split() for words in on_page())
    planned = new.run(*plan_words, "--json")
    assert (planned.code, planned.data["converts"], planned.data["kept"]) == (0, True, ""), planned.err
    assert not (old.data / ".deployer/next").exists()

    if old.engine != "process":  # it is built before the uploads begin, not for minutes among them
        assert new.run("image", "build", "--engine", old.engine, "--set", "server.version=7").code == 0
    stop, sent = threading.Event(), threading.Thread(target=lambda: uploads(deployment, stop))
    sent.start()
    try:
        done = new.run(*upgrade_words, "--json")
    finally:
        stop.set()
        sent.join()
    assert done.code == 0, done.out + done.err
    assert done.data["uploads"] > 2 and done.data["cached"] == 1 and done.data["kept"] == "001"
    assert deployment.lacking == [], deployment.failed
    assert not list((old.data / "+files").rglob("*-tmp"))
    status = new.run("status", "--json").data
    assert (status["ready"], status["server_version"][0]) == (True, "7")
    asked = len(deployment.upstream.requests)
    assert new.run("package", "download", "demo==1.1", "--index", "root/pypi", "-d", "again").code == 0
    assert not [one for one in deployment.upstream.requests[asked:] if ".whl" in str(one)]
    plan = new.run("plan", "--json", "--set", "server.version=7")
    assert plan.data["steps"]["indexes"] == ["unchanged"], plan.out
    again = new.run("upgrade", "--to", "7", "--json")
    assert (again.code, again.data["due"]) == (0, False), again.err

    assert deployment.upload("since", "1.0")  # with the login of before
    back = new.run(*back_words, "--json")
    assert back.code == 0, back.out + back.err
    assert "root/dev/since-1.0-py3-none-any.whl" in back.data["lost"]
    kept = Path(back.data["aside"]) / "root/dev/since-1.0-py3-none-any.whl"
    assert kept.read_bytes() == deployment.uploaded[-1].content
    status = old.run("status", "--json").data
    assert (status["ready"], status["server_uuid"]) == (True, before["server_uuid"])
    assert set(deployment.lacking) == {path.rpartition("/")[2] for path in back.data["lost"]}
    (command,) = back.data["commands"]
    assert command.split()[1:3] == again_words[:2]
    assert old.run(*command.split()[1:]).code == 0
    assert deployment.lacking == []
    assert old.run("rollback").code == 5


@pytest.mark.docker
@pytest.mark.endurance  # it builds the image twice
def test_a_new_image_on_the_same_data_and_back(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    need("docker")
    base = f"{BASE.rpartition(':')[0]}:{tmp_path.name.replace('_', '-')}-{os.getpid()}"
    subprocess.run(["docker", "tag", BASE, base], check=True, timeout=PATIENCE)
    try:
        with alone("docker"), running(request, "docker", tmp_path) as deployment:
            cli = deployment.old
            assert deployment.upload("mine", "1.0")
            before = cli.run("status", "--json").data
            profile = Path(cli.extra["DEPLOYER_PROFILE"])
            profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | {"image": {"base": base}}))
            planned = cli.run("upgrade", "--plan", "--json").data
            assert (planned["due"], planned["converts"]) == (True, False)
            done = cli.run("upgrade", "--json", timeout=900)
            assert (done.code, done.data["kept"]) == (0, "001"), done.out
            status = cli.run("status", "--json").data
            assert (status["ready"], status["server_uuid"]) == (True, before["server_uuid"])
            assert deployment.upload("since", "1.0") and deployment.lacking == []
            assert cli.run("upgrade", "--json").data["due"] is False
            back = cli.run("rollback", "--json", timeout=900)
            assert (back.code, back.data["lost"]) == (0, ["root/dev/since-1.0-py3-none-any.whl"]), back.out
            assert cli.run("status", "--json").data["ready"] is True
            assert deployment.lacking == ["since-1.0-py3-none-any.whl"]
            kept = Path(back.data["aside"]) / back.data["lost"][0]
            assert kept.read_bytes() == deployment.uploaded[-1].content
    finally:
        subprocess.run(["docker", "rmi", base], check=False, capture_output=True, timeout=PATIENCE)


def uploads(deployment: Deployment, stop: threading.Event) -> None:
    """Upload one wheel after the other; those that fail are of the moment without a server."""
    number = 0
    while not stop.is_set():
        number += 1
        deployment.upload("meanwhile", f"1.{number}")
        stop.wait(0.2)


def test_what_cant_be_upgraded_is_refused_before_any_effect(python7: str, tmp_path: Path) -> None:
    cli = Cli(home=tmp_path, engine="process", upstream="http://127.0.0.1:9/simple/")
    try:
        assert cli.up("--no-pip").code == 0
        wrong = cli.run("upgrade", "--to", "7", "--json")
        assert wrong.code == 4 and "[server7]" in wrong.envelope["error"]["hint"], wrong.out
        assert cli.run("upgrade", "--to", "5").code == 2
        assert cli.run("upgrade", "--json").data["due"] is False
        assert cli.run("rollback").code == 5
        cli.python = python7
        assert cli.run("upgrade", "--to", "7.9").code == 2
        cli.python = sys.executable
        assert cli.run("status", "--json").data["ready"] is True
    finally:
        cli.clean()


STATES = {
    "converting": ".deployer/next",
    "carried": ".deployer/next/carried.json",
    "held": ".deployer/held",
    "switching": ".deployer/switch.json",
    "switched": ".deployer/former/001/about.json",
}
"""A file of the data directory that appears in each step of an upgrade."""


def kill(cli: Cli, words: tuple[str, ...], seen: Path, *, after: float = 0.0) -> bool:
    """Run a command, and kill it with all that it started once ``seen`` is there; whether it was still running."""
    process = subprocess.Popen(
        cli.argv(*words),
        env=cli.env,
        cwd=cli.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not seen.exists():
        time.sleep(0.001)
    time.sleep(after)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def survives(deployment: Deployment, number: int, *, state: str, after: float = 0.0) -> None:
    """An upgrade that is killed in ``state`` converges when it is repeated, and loses no upload."""
    words = ("upgrade", "--to", "7")
    deployment.upload("before", f"1.{number}")
    kill(deployment.new, words, deployment.old.data / STATES[state], after=after)
    deadline = time.monotonic() + 90
    while (done := deployment.new.run(*words, "--json")).code == LOCKED and time.monotonic() < deadline:
        time.sleep(1)  # what it had started goes on, and ends by itself
    assert done.code == 0, done.out
    status = deployment.new.run("status", "--json").data
    assert (status["ready"], status["server_version"][0]) == (True, "7"), (state, status)
    assert deployment.lacking == [], state


def go_back(deployment: Deployment) -> None:
    back = deployment.new.run("rollback", "--json")
    assert back.code == 0, back.out
    assert deployment.old.run("status", "--json").data["server_version"][0] == "6"
    shutil.rmtree(deployment.old.data / ".deployer/former")


@pytest.fixture
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with running(request, "process", tmp_path) as made:
        yield made


@pytest.mark.server
def test_a_kill_after_the_switch_converges(process: Deployment) -> None:
    survives(process, 1, state="switched")
    go_back(process)
    assert process.lacking == []


@pytest.mark.server
@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_a_kill_at_any_step_converges(process: Deployment) -> None:
    chance = random.Random(7)
    number = 0
    for state in STATES:
        for _ in range(6):
            number += 1
            after = chance.choice((0.0, chance.uniform(0, 0.05), chance.uniform(0, 2)))
            survives(process, number, state=state, after=after)
            go_back(process)
    assert process.lacking == []


UPLOADS, CACHED = 2_000, 20_000
"""Of the large round: the figures that the conversion is promised for."""


@pytest.mark.server
@pytest.mark.endurance
@pytest.mark.timeout(7200)
def test_many_files_are_converted_beside_the_running_server(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    large_round(request, tmp_path, uploads=UPLOADS, cached=CACHED)


def large_round(request: pytest.FixtureRequest, home: Path, *, uploads: int, cached: int) -> None:
    """Convert so many files while pages are asked for and wheels uploaded, and go back; the figures are printed."""
    projects = [f"public-{number}" for number in range(max(cached // 100, 2))]
    public = [make_wheel(projects[number % len(projects)], f"1.{number}") for number in range(cached)]
    with running(request, "process", home, public) as made, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: made.upload(f"own-{number % 50}", f"1.{number}"), range(uploads)))
        for got in pool.map(lambda project: fetched(made, project), projects):
            assert got
        asked = len(made.upstream.requests)
        stop = threading.Event()
        watched = pool.submit(lambda: watch(made, stop))
        done = made.new.run("upgrade", "--to", "7", "--json", timeout=3600)
        stop.set()
        failed = watched.result()
        assert done.code == 0, done.out
        assert (done.data["uploads"], done.data["cached"]) == (uploads, cached)
        assert made.lacking == []
        assert all(pool.map(lambda project: fetched(made, project), projects))
        assert not [one for one in made.upstream.requests[asked:] if ".whl" in str(one)]
        back = made.new.run("rollback", "--json", timeout=3600)
        assert (back.code, back.data["lost"]) == (0, []), back.out
        assert made.lacking == []
    figures = {key: done.data[key] for key in ("convert_seconds", "switch_seconds", "needed", "database")}
    print(f"\n{uploads} uploads, {cached} cached files: {figures}, {failed} pages failed")


def fetched(deployment: Deployment, project: str) -> int:
    """Fetch every file of a mirrored project; their number."""
    _, page = request(deployment.old.port, "GET", f"/root/pypi/+simple/{project}/", headers=JSON)
    base = f"{deployment.old.url}/root/pypi/+simple/{project}/"
    for file in page["files"]:
        with urlopen(urljoin(base, file["url"]), timeout=120) as answer:
            assert answer.read()
    return len(page["files"])


def watch(deployment: Deployment, stop: threading.Event) -> int:
    """Ask for a page all the time; how many requests failed."""
    failed = 0
    while not stop.is_set():
        try:
            status, _ = request(deployment.old.port, "GET", "/root/dev/+simple/own-1/", headers=JSON)
        except (OSError, HTTPException):
            status = 0
        failed += status != 200
        stop.wait(0.02)
    return failed
