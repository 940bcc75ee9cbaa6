"""``deployer warm``, killed at any step, and its server too: the next run goes on, and nothing half is served."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from deployer.protocol import OFFLINE_HEADER
from tests.engines import need
from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli
from tests.server_process import PATIENCE
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

SIZE = 400_000
STEPS = ("page", "metadata", "first file", "third file", "last file")


def wheels(step: str) -> list[Distribution]:
    """Six that nobody has fetched, for one step."""
    stem = step.replace(" ", "-")
    content = {"data.bin": os.urandom(SIZE)}
    return [make_wheel(f"{stem}-{number}", "1.0", files={f"{stem}_{number}.py": "", **content}) for number in range(6)]


@pytest.fixture(scope="module")
def made() -> dict[str, list[Distribution]]:
    return {step: wheels(step) for step in (*STEPS, "server")}


@pytest.fixture(scope="module")
def upstream(made: dict[str, list[Distribution]]) -> Iterator[Upstream]:
    with Upstream([wheel for some in made.values() for wheel in some], core_metadata=True) as running:
        yield running


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    need("process")
    running = Cli(home=tmp_path_factory.mktemp("home"), engine="process", upstream=upstream.simple_url)
    try:
        assert running.up("--no-pip").code == 0
        yield running
    finally:
        running.clean()


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin(cli: Cli, some: list[Distribution]) -> subprocess.Popen[bytes]:
    requirements = cli.home / f"{some[0].project}.txt"
    requirements.write_text("".join(f"{wheel.project}==1.0\n" for wheel in some))
    words = cli.argv("warm", "-r", str(requirements), "--json", "--jobs", "2")
    env = {**cli.env, "TMPDIR": str(cli.home)}  # what a killed command leaves behind
    return subprocess.Popen(words, env=env, cwd=cli.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def served(cli: Cli, wheel: Distribution) -> bytes | None:
    """The file, from what is here."""
    page = f"/root/dev/+simple/{wheel.project}/"
    answer = get(cli.port, page, {**JSON, OFFLINE_HEADER: "1"})
    listed = json.loads(answer.body)["files"] if answer.status == 200 else []
    if not listed:
        return None
    got = get(cli.port, urljoin(page, listed[0]["url"]), {**FILE, OFFLINE_HEADER: "1"})
    return got.body if got.status == 200 and got.whole else None


def nothing_half(cli: Cli, some: list[Distribution]) -> None:
    for wheel in some:
        content = served(cli, wheel)
        assert content is None or hashlib.sha256(content).hexdigest() == wheel.sha256


def goes_on(cli: Cli, upstream: Upstream, some: list[Distribution]) -> None:
    requirements = cli.home / f"{some[0].project}.txt"
    done = cli.run("warm", "-r", str(requirements), "--json")
    assert (done.code, done.data["cached"] + len(done.data["fetched"])) == (0, len(some)), done
    assert all(served(cli, wheel) == wheel.content for wheel in some)


@pytest.mark.parametrize("step", STEPS)
def test_the_next_run_goes_on(cli: Cli, upstream: Upstream, made: dict[str, list[Distribution]], step: str) -> None:
    some = made[step]
    names = {wheel.filename for wheel in some}

    def files() -> int:
        return sum(upstream.files(name) for name in names)

    reached = {
        "page": lambda: upstream.pages(some[-1].project) > 0,
        "metadata": lambda: any(one.path.endswith(f"{some[-1].filename}.metadata") for one in upstream.requests),
        "first file": lambda: files() > 0,
        "third file": lambda: files() > 2,
        "last file": lambda: files() == len(some),
    }[step]
    upstream.faults.path, upstream.faults.bandwidth = "/files/", 4 * SIZE
    try:
        process = begin(cli, some)
        until(reached)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        nothing_half(cli, some)
    finally:
        upstream.faults.path, upstream.faults.bandwidth = "/", 0
    goes_on(cli, upstream, some)
    # What was under way when the command died has been fetched to its end by the server.
    assert {upstream.files(name) for name in names} == {1}


def test_a_killed_server_is_told_and_the_next_run_goes_on(
    cli: Cli, upstream: Upstream, made: dict[str, list[Distribution]]
) -> None:
    some = made["server"]
    upstream.faults.path, upstream.faults.bandwidth = "/files/", 2 * SIZE
    try:
        process = begin(cli, some)
        until(lambda: upstream.files(some[0].filename) > 0)
        for pid in servers(cli):
            os.kill(pid, signal.SIGKILL)
        assert process.wait() in (6, 9)
    finally:
        upstream.faults.path, upstream.faults.bandwidth = "/", 0
    until(lambda: cli.run("status", "--json").data["ready"])
    nothing_half(cli, some)
    goes_on(cli, upstream, some)


def servers(cli: Cli) -> list[int]:
    """The processes of the server: they name its directory, and the supervisor is their parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"deployer.server" in words and str(cli.data).encode() in words:
            found[int(path.name)] = int(parent)
    return [pid for pid, parent in found.items() if parent in found]
