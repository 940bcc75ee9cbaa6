"""What a user does: uv installs, resolves and locks, always without a cache of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.bench import Bench
from benchmarks.load import JSON
from benchmarks.peers.base import LOCAL

PATIENCE = 60.0
"""Seconds after which an installer counts as failed."""
LONGER = 240.0
"""Seconds after which a resolution has failed: who fetches whole wheels for it needs a minute on the slow link."""


@dataclass(frozen=True, kw_only=True)
class Done:
    seconds: float
    """Until the last was done."""
    failed: int
    said: str
    """What the first that failed had to say."""


def install(
    bench: Bench,
    simple_url: str,
    wanted: Sequence[str],
    *,
    clients: int = 1,
    patience: float = PATIENCE,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Install ``wanted`` from ``simple_url``, ``clients`` times at once, each into a directory of its own.

    ``env``: more variables.
    """

    def words(room: Path) -> list[str]:
        return ["pip", "install", "--only-binary", ":all:", "--target", str(room / "target"), *wanted]

    return _at_once(bench, simple_url, words, clients=clients, patience=patience, env=env)


def pip_download(bench: Bench, simple_url: str, wanted: Sequence[str], *, wheels: int, clients: int = 1) -> Done:
    """``pip download`` of ``wanted``, ``clients`` times at once; it has failed without exactly ``wheels`` files."""
    quiet = ["--isolated", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]

    def command(room: Path) -> list[str]:
        words = [sys.executable, "-m", "pip", "download", *quiet, "--only-binary", ":all:", "--index-url", simple_url]
        return [*words, "--dest", str(room / "target"), *wanted]

    def right(room: Path) -> bool:
        return len(list((room / "target").glob("*.whl"))) == wheels

    return _run(bench, command, right, clients=clients, patience=LONGER)


def install_well(bench: Bench, simple_url: str, wanted: Sequence[str]) -> float:
    """Seconds of an installation that must not fail; without it there is nothing to compare. Raises SystemExit."""
    return well(install(bench, simple_url, wanted))


def resolve(bench: Bench, simple_url: str, wanted: Sequence[str], *, pins: int, clients: int = 1) -> Done:
    """``uv pip compile`` of ``wanted``, ``clients`` times at once; it has failed without exactly ``pins`` pins."""

    def words(room: Path) -> list[str]:
        (room / "wanted.in").write_text("\n".join(wanted))
        return ["pip", "compile", "--only-binary", ":all:", "--no-header", "--no-annotate", str(room / "wanted.in")]

    def right(room: Path) -> bool:
        return (room / "log").read_text().count("==") == pins

    return _at_once(bench, simple_url, words, right, clients=clients)


def lock(bench: Bench, simple_url: str, wanted: Sequence[str], *, packages: int) -> Done:
    """``uv lock`` of a project that needs ``wanted``; it has failed without exactly ``packages`` other packages."""

    def words(room: Path) -> list[str]:
        return _locking(room, wanted)

    def right(room: Path) -> bool:
        return (room / "uv.lock").read_text().count("[[package]]") == packages + 1

    return _at_once(bench, simple_url, words, right)


def lock_of(bench: Bench, simple_url: str, wanted: Sequence[str], into: Path) -> Path:
    """``uv.lock`` in ``into``, of a project that needs ``wanted``. Raises SystemExit."""

    def words(room: Path) -> list[str]:
        return _locking(room, wanted)

    def kept(room: Path) -> bool:
        shutil.copy(room / "uv.lock", into)
        return True

    well(_at_once(bench, simple_url, words, kept))
    return into / "uv.lock"


def _locking(room: Path, wanted: Sequence[str]) -> list[str]:
    needs = ", ".join(f'"{name}"' for name in wanted)
    text = f'[project]\nname = "benchmark"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [{needs}]\n'
    (room / "pyproject.toml").write_text(text)
    return ["lock", "--project", str(room)]


def _at_once(
    bench: Bench,
    simple_url: str,
    words: Callable[[Path], Sequence[str]],
    right: Callable[[Path], bool] = lambda room: True,
    *,
    clients: int = 1,
    patience: float = LONGER,
    env: Mapping[str, str] | None = None,
) -> Done:
    """uv with ``words`` and without a cache, ``clients`` times at once, each in a directory of its own."""
    common = ["--quiet", "--no-cache", "--python", sys.executable, "--default-index", simple_url]

    def command(room: Path) -> list[str]:
        return [bench.tools.program("uv"), *words(room), *common]

    return _run(bench, command, right, clients=clients, patience=patience, env=env)


def _run(
    bench: Bench,
    command: Callable[[Path], Sequence[str]],
    right: Callable[[Path], bool],
    *,
    clients: int,
    patience: float,
    env: Mapping[str, str] | None = None,
) -> Done:
    """A command ``clients`` times at once, each in a directory of its own."""
    top = Path(tempfile.mkdtemp(prefix="clients-", dir=bench.work))
    rooms = [top / str(number) for number in range(clients)]
    commands = []
    for room in rooms:
        room.mkdir()
        commands.append(command(room))
    whole = {**bench.tools.env, **(env or {}), "TMPDIR": str(top)}
    started = time.perf_counter()
    running = []
    for room, words in zip(rooms, commands, strict=True):
        with (room / "log").open("wb") as output:
            running.append(subprocess.Popen(words, env=whole, stdout=output, stderr=output))
    # Popen.wait with a timeout looks every 50 ms only, which is half of what some of these take.
    too_late = threading.Timer(patience, _kill, [running])
    too_late.start()
    codes = [one.wait() for one in running]
    seconds = time.perf_counter() - started
    too_late.cancel()
    failures = [room for room, code in zip(rooms, codes, strict=True) if code or not right(room)]
    said = (failures[0] / "log").read_text()[-2000:] if failures else ""
    shutil.rmtree(top)
    return Done(seconds=seconds, failed=len(failures), said=said)


def _kill(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for one in running:
        one.kill()


def well(done: Done) -> float:
    """Seconds of what must not fail. Raises SystemExit."""
    if done.failed:
        raise SystemExit(f"uv failed:\n{done.said}")
    return done.seconds


def page(simple_url: str, project: str) -> httpx.Response:
    """The page of ``project``, as JSON where the server has that. Raises httpx.HTTPError."""
    accept = {"Accept": f"{JSON['Accept']}, text/html;q=0.1"}
    return httpx.get(f"{simple_url}{project}/", headers=accept, timeout=120, **LOCAL).raise_for_status()


def file_url(simple_url: str, project: str, filename: str) -> str:
    """Where the page says that ``filename`` is."""
    import re

    answer = page(simple_url, project)
    if "json" in answer.headers["content-type"]:
        links = [file["url"] for file in answer.json()["files"]]
    else:
        links = re.findall(r'href="([^"]+)"', answer.text)
    link = next(link for link in links if f"/{link}".partition("#")[0].endswith(f"/{filename}"))
    return str(answer.url.join(link.partition("#")[0]))
