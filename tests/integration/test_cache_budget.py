"""`server.budget` while new files come: the disk is never far above it, and nothing that must stay goes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployer.devpi.api import DevpiApi
from deployer.secrets import Secret
from tests.indexed_server import FILE, JSON, get, upload
from tests.server_process import Server, request
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = pytest.mark.server
OWN = make_wheel("own", "1.0")


def wheels(number: int, size: int) -> list[Distribution]:
    return [make_wheel(f"wheel-{at}", "1.0", files={"x.bin": os.urandom(size)}) for at in range(number)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    try:
        yield made
    finally:
        made.end()


def prepared(server: Server, upstream: Upstream, budget: int) -> None:
    """Started, with a mirror, a stage and an upload."""
    server.start("--cache-budget", str(budget))
    with DevpiApi(f"http://127.0.0.1:{server.port}") as api:
        api.identity()
        api.login("root", Secret(server.password))
        mirror = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True}
        api.put_index("root/pypi", mirror)
        api.put_index("root/dev", {"type": "stage", "bases": ("root/pypi",)})
    assert upload(server, server.auth, "root/dev", OWN) == 200


def place(wheel: Distribution, index: str = "root/pypi") -> str:
    return f"{index}/+f/{wheel.sha256[:3]}/{wheel.sha256[3:16]}/{wheel.filename}"


def install(server: Server, wheel: Distribution) -> None:
    """Ask for the page and the file, as an installer does."""
    assert get(server.port, f"/root/dev/+simple/{wheel.project}/", JSON).status == 200
    assert get(server.port, f"/{place(wheel)}", FILE).body == wheel.content


def du(*roots: Path) -> int:
    """Bytes on the disk, with directories, as `du` counts them."""
    total = 0
    todo = list(roots)
    while todo:
        for entry in _scan(todo.pop()):
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
            except FileNotFoundError:
                continue
    return total


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(directory))
    except FileNotFoundError:
        return []


@contextmanager
def held(server: Server) -> Iterator[None]:
    """Stop the server meanwhile: a scan would count what is removed behind it and what is stored before it."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def cache_size(server: Server) -> int:
    below = ("upstream", "companions", "pages", "stale")
    return du(server.serverdir / "+files/root/pypi", *(server.private / name for name in below))


def loaded(server: Server, files: list[Distribution]) -> int:
    """Install all of them, four at a time; the most that the cache took meanwhile."""
    over, most = threading.Event(), [0]

    def look() -> None:
        while not over.wait(0.1):
            with held(server):
                most[0] = max(most[0], cache_size(server))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda wheel: install(server, wheel), files))
    finally:
        over.set()
        watcher.join()
    return max(most[0], cache_size(server))


def check(server: Server, files: list[Distribution], budget: int) -> None:
    most = loaded(server, files)
    assert budget * 0.8 < most < budget * 1.05, most
    assert get(server.port, f"/{place(OWN, 'root/dev')}", FILE).body == OWN.content
    assert not (server.serverdir / "+files" / place(files[0])).exists()
    install(server, files[-1])  # it may not be kept yet: a client has a file before devpi
    install(server, files[0])  # fetched anew
    told = request(server.port, "GET", "/+deployer")[1]
    assert told["cache_budget"] == budget
    assert told["cache_bytes"] < budget * 1.05


def test_the_cache_stays_within_its_budget(server: Server) -> None:
    files = wheels(90, 300_000)
    with Upstream(files) as upstream:
        prepared(server, upstream, 20_000_000)
        check(server, files, 20_000_000)


@pytest.mark.endurance
def test_the_cache_stays_within_its_budget_under_a_thousand_new_wheels(server: Server) -> None:
    files = wheels(1000, 300_000)
    with Upstream(files) as upstream:
        prepared(server, upstream, 100_000_000)
        check(server, files, 100_000_000)


def killed_while_pruning(server: Server, files: list[Distribution], upstream: Upstream) -> None:
    """Kill the server in the middle of a load that has it prune, then see that database and disk agree."""
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(get, server.port, f"/{place(wheel)}", FILE) for wheel in files]
        while len(_below(server)) < 10 and not all(job.done() for job in jobs):
            pass
        server.send(signal.SIGKILL)
        for job in jobs:
            job.exception()
    server.start("--cache-budget", "1500000")
    for wheel in files:
        install(server, wheel)
    assert get(server.port, f"/{place(OWN, 'root/dev')}", FILE).body == OWN.content


def _below(server: Server) -> list[Path]:
    return list((server.serverdir / "+files/root/pypi").rglob("*.whl"))


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.endurance)])
def test_a_kill_in_the_middle_of_pruning_loses_nothing(server: Server, rounds: int) -> None:
    files = wheels(24, 100_000)
    with Upstream(files) as upstream:
        prepared(server, upstream, 1_500_000)
        for wheel in files:
            assert get(server.port, f"/root/dev/+simple/{wheel.project}/", JSON).status == 200
        for _ in range(rounds):
            killed_while_pruning(server, files, upstream)
        server.end()
