"""Resolutions on an index that is new: uv and pip read metadata, and fetch no wheel for it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from packaging.version import Version

from tests.indexed_server import FILE, JSON, at_once, get, make_indexes
from tests.server_process import PATIENCE, Server
from tests.upstream import JSON_TYPE, Answer, Distribution, Upstream, make_sdist, make_wheel

pytestmark = pytest.mark.server

BESIDE = Path(sys.executable).parent
NOISE = random.Random(1).randbytes(512 * 1024)
NAMES = [f"part-{number}" for number in range(8)]
ENOUGH = 64 * 1024
"""Bytes of a wheel that may be asked for because of its metadata."""


def wheel(name: str, requires: tuple[str, ...] = (), release: str = "1.0") -> Distribution:
    return make_wheel(name, release, requires=requires, files={f"{name.replace('-', '_')}/data.bin": NOISE})


WHEELS = [
    wheel("app", ("part-0>=1", "part-7<2")),
    *(wheel(name, (following,)) for name, following in itertools.pairwise(NAMES)),
    wheel(NAMES[-1]),
    wheel(NAMES[-1], release="2.0"),
]
PINNED = sorted(["app==1.0", *(f"{name}==1.0" for name in NAMES)])


@dataclass
class World:
    """A server without any file, on an upstream; ``home``: of the clients."""

    server: Server
    upstream: Upstream
    home: Path
    index: str = "root/pypi"

    @property
    def simple_url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/{self.index}/+simple/"

    def run(self, *words: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PIP_CONFIG_FILE": os.devnull, "NO_COLOR": "1"}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + self.server.output[-4000:]
        return done.stdout

    def uv(self, *asked: str) -> list[str]:
        """What uv resolves with an empty cache."""
        asked_for = self.home / "requirements.in"
        asked_for.write_text("\n".join(asked or ("app",)))
        words = ("pip", "compile", "--quiet", "--no-cache", "--no-config", "--no-header", "--no-annotate")
        python = ("--python", sys.executable, "--only-binary", ":all:")
        found = self.run(str(BESIDE / "uv"), *words, *python, "--index-url", self.simple_url, str(asked_for))
        return sorted(found.split())

    def pip(self, *asked: str) -> list[str]:
        """What pip resolves with an empty cache."""
        words = ("install", "--dry-run", "--ignore-installed", "--quiet", "--no-cache-dir", "--report", "-")
        more = ("--no-input", "--disable-pip-version-check", "--only-binary", ":all:", "--index-url", self.simple_url)
        report = json.loads(self.run(sys.executable, "-m", "pip", *words, *more, *(asked or ("app",))))
        return sorted(f"{one['metadata']['name']}=={one['metadata']['version']}" for one in report["install"])

    def sent(self, wheel: Distribution) -> int:
        """Bytes of a wheel that the upstream sent."""
        return self.upstream.sent(f"/files/{wheel.filename}")

    def listed(self, wheel: Distribution) -> dict[str, object]:
        """What the page says of a file, with the address in full."""
        page = f"/{self.index}/+simple/{wheel.project}/"
        got = get(self.server.port, page, JSON)
        assert got.status == 200, got.body
        (file,) = [one for one in json.loads(got.body)["files"] if one["filename"] == wheel.filename]
        return {**file, "url": urljoin(page, file["url"])}

    def path(self, wheel: Distribution) -> str:
        return urlsplit(str(self.listed(wheel)["url"])).path


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(list(WHEELS)) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, upstream: Upstream) -> Iterator[World]:
    server = Server(tmp_path / "data")
    (tmp_path / "home").mkdir()
    try:
        server.start("--request-timeout", "10")
        make_indexes(server.port, server.auth, upstream)
        yield World(server, upstream, tmp_path / "home")
    finally:
        server.end()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


OLD_PIP = pytest.mark.skipif(
    Version(version("pip")) < Version("24"), reason="pip 23 gets whole wheels in a dry run, from any index"
)
Resolve = Callable[[World], list[str]]
CLIENTS = [pytest.param(World.uv, id="uv"), pytest.param(World.pip, id="pip")]
PLACES = [
    pytest.param(World.uv, "root/pypi", id="uv on the mirror"),
    pytest.param(World.uv, "root/dev", id="uv on a stage"),
    pytest.param(World.pip, "root/dev", id="pip on a stage", marks=OLD_PIP),
]


@pytest.mark.parametrize(("resolve", "index"), PLACES)
def test_metadata_of_the_upstream_is_passed_on(world: World, resolve: Resolve, index: str) -> None:
    world.upstream.core_metadata = world.upstream.ranges = True
    world.index = index
    assert resolve(world) == PINNED
    assert [world.sent(wheel) for wheel in WHEELS] == [0] * len(WHEELS)
    world.upstream.forget()
    assert resolve(world) == PINNED
    assert world.upstream.files() == 0


@pytest.mark.parametrize(("resolve", "index"), PLACES)
def test_metadata_is_read_from_wheels_by_ranges_once(world: World, resolve: Resolve, index: str) -> None:
    world.upstream.ranges = True
    world.index = index
    assert resolve(world) == PINNED
    assert max(world.sent(wheel) for wheel in WHEELS) <= ENOUGH
    world.upstream.forget()
    assert resolve(world) == PINNED
    assert world.upstream.files() == 0


@pytest.mark.parametrize("resolve", CLIENTS)
def test_without_ranges_each_wheel_comes_once_at_most(world: World, resolve: Resolve) -> None:
    assert resolve(world) == PINNED
    assert all(world.sent(wheel) <= len(wheel.content) + ENOUGH for wheel in WHEELS)
    world.upstream.forget()
    assert resolve(world) == PINNED
    assert world.upstream.files() == 0


def test_clients_at_once_ask_for_each_metadata_once(world: World) -> None:
    world.upstream.ranges = True
    path = f"{world.path(WHEELS[0])}.metadata"
    world.upstream.faults.path, world.upstream.faults.latency = "/files/", 0.2
    answers = at_once(world.server.port, [(path, FILE)] * 16)
    assert {(got.status, got.body) for got in answers} == {(200, WHEELS[0].metadata)}
    assert world.sent(WHEELS[0]) <= ENOUGH
    assert world.upstream.files(WHEELS[0].filename) == 1


def test_resolutions_at_once_agree_and_fetch_no_wheel(world: World) -> None:
    world.upstream.ranges = True
    homes = [world.home / str(number) for number in range(3)]
    for home in homes:
        home.mkdir()
    worlds = [World(world.server, world.upstream, home) for home in homes]
    with ThreadPoolExecutor(len(worlds)) as pool:
        assert list(pool.map(World.uv, worlds)) == [PINNED] * len(worlds)
    assert max(world.sent(wheel) for wheel in WHEELS) <= ENOUGH


def test_known_metadata_is_served_while_the_upstream_is_down(world: World) -> None:
    world.upstream.ranges = True
    assert world.uv() == PINNED
    world.upstream.stop()
    assert world.uv() == PINNED


def test_every_wheel_has_metadata_and_no_sdist_has(world: World) -> None:
    world.upstream.ranges = True
    sdist = make_sdist("app", "0.9")
    world.upstream.add(sdist)
    for wheel in (WHEELS[0], WHEELS[1]):
        assert world.listed(wheel)["core-metadata"]
        assert get(world.server.port, f"{world.path(wheel)}.metadata", FILE).body == wheel.metadata
    assert not world.listed(sdist).get("core-metadata")


def test_metadata_of_a_wheel_that_is_here_comes_from_it(world: World) -> None:
    world.upstream.ranges = True
    path = world.path(WHEELS[0])
    assert get(world.server.port, path, FILE).body == WHEELS[0].content
    wait_until((world.server.serverdir / "+files" / path[1:]).exists)
    world.upstream.forget()
    assert get(world.server.port, f"{path}.metadata", FILE).body == WHEELS[0].metadata
    assert world.upstream.files() == 0


EVIL = b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
OTHER = WHEELS[0].metadata.replace(b"part-0", b"evil-0")


@pytest.mark.parametrize(
    ("promise", "sent"),
    [
        pytest.param({"sha256": "0" * 64}, OTHER, id="with another hash"),
        pytest.param({"sha256": hashlib.sha256(EVIL).hexdigest()}, EVIL, id="of another project"),
        pytest.param(True, EVIL, id="of another project, without a hash"),
        pytest.param(True, b"<!DOCTYPE html><title>Please log in</title>", id="a login page"),
        pytest.param(True, WHEELS[0].metadata + bytes(5 << 20), id="huge"),
    ],
)
def test_wrong_metadata_of_the_upstream_gives_way_to_that_of_the_wheel(
    world: World, promise: object, sent: bytes
) -> None:
    honest = WHEELS[0]
    listed = {
        "filename": honest.filename,
        "url": f"/files/{honest.filename}",
        "hashes": {"sha256": honest.sha256},
        "core-metadata": promise,
    }
    page = json.dumps({"meta": {"api-version": "1.1"}, "name": "app", "versions": ["1.0"], "files": [listed]}).encode()
    world.upstream.ranges = True
    world.upstream.answers = {
        "/simple/app/": Answer(body=page, kind=JSON_TYPE),
        f"/files/{honest.filename}.metadata": Answer(body=sent),
    }
    for _ in range(2):
        got = get(world.server.port, f"{world.path(honest)}.metadata", FILE)
        assert (got.status, got.body) == (200, honest.metadata)


def test_a_wheel_without_metadata_is_promised_none_from_then_on(world: World) -> None:
    world.upstream.ranges = True
    bare = replace(WHEELS[0], content=make_wheel("another", "1.0").content)
    world.upstream.add(bare)
    assert world.listed(bare)["core-metadata"]
    assert get(world.server.port, f"{world.path(bare)}.metadata", FILE).status == 404
    assert not world.listed(bare).get("core-metadata")
    assert get(world.server.port, world.path(bare), FILE).body == bare.content


def test_a_range_of_a_cold_file_is_passed_through(world: World) -> None:
    world.upstream.ranges = True
    content, path = WHEELS[0].content, world.path(WHEELS[0])
    for asked, start, stop in (("0-9", 0, 10), ("-100", len(content) - 100, len(content)), ("500-", 500, len(content))):
        got = get(world.server.port, path, {**FILE, "Range": f"bytes={asked}"})
        assert got.status == 206
        assert got.body == content[start:stop]
        assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(content)}"
        if asked != "500-":
            assert world.sent(WHEELS[0]) <= 200
    assert get(world.server.port, path, FILE).body == content
    got = get(world.server.port, path, {**FILE, "Range": f"bytes={len(content)}-"})
    assert got.status == 416


def test_a_head_of_a_cold_file_costs_nothing(world: World) -> None:
    got = get(world.server.port, world.path(WHEELS[0]), FILE, "HEAD")
    assert got.status == 200
    assert int(got.headers["content-length"]) == len(WHEELS[0].content)
    assert world.sent(WHEELS[0]) == 0
