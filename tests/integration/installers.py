"""pip and uv installing from an index, each into a directory of its own; what an upstream and ours make of the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

BESIDE = Path(sys.executable).parent
PATIENCE = 180.0


@dataclass(frozen=True)
class Outcome:
    """Whether an installation succeeded, and the modules and versions that it left."""

    succeeded: bool
    modules: Mapping[str, str]  # name of the file, its content
    versions: frozenset[str]
    told: str = field(compare=False)


def pip(index: str, *words: str) -> Outcome:
    command = (sys.executable, "-I", "-m", "pip", "install", "--isolated", "--no-cache-dir", "--no-compile")
    quiet = ("--disable-pip-version-check", "--no-input", "--no-deps", "--progress-bar", "off", "--retries", "0")
    return _installed((*command, *quiet, "--index-url", index, *words), "--target")


def uv(index: str, *words: str) -> Outcome:
    command = (str(BESIDE / "uv"), "--no-config", "pip", "install", "--no-cache", "--no-deps", "--no-progress")
    return _installed((*command, "--python", sys.executable, "--index-url", index, *words), "--target")


INSTALLERS: Mapping[str, Callable[..., Outcome]] = {"pip": pip, "uv": uv}


def _installed(command: Sequence[str], option: str) -> Outcome:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    with tempfile.TemporaryDirectory() as home:
        target = Path(home) / "target"
        env = {**kept, "HOME": home, "NO_COLOR": "1", "UV_HTTP_RETRIES": "0"}
        done = subprocess.run(
            [*command, option, str(target)],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=home,
        )
        modules = {path.name: path.read_text() for path in target.glob("*.py")}
        versions = frozenset(path.name.removesuffix(".dist-info") for path in target.glob("*.dist-info"))
        return Outcome(done.returncode == 0, modules, versions, done.stdout[-2000:] + done.stderr[-2000:])


def install(
    direct: str, ours: str, words: Sequence[str], options: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Outcome, Outcome]]:
    """For each installer that ``options`` names: what it does with the upstream's index, and with ours."""
    jobs = [(name, index) for name in options for index in (direct, ours)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        found = pool.map(lambda job: INSTALLERS[job[0]](job[1], *words, *options[job[0]]), jobs)
        outcomes = list(found)
    return {name: (outcomes[2 * number], outcomes[2 * number + 1]) for number, name in enumerate(options)}
