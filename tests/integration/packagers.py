"""The programs that install packages, as their users have them: each in an environment of its own, installed once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from tests.engines import REQUIRED

BESIDE = Path(sys.executable).parent
PATIENCE = 180.0
WANTED: Mapping[str, tuple[str, ...]] = {
    "pip26": ("pip==26.3",),
    "pip23": ("pip==23.2.1",),
    "poetry": ("poetry==2.5.1",),
    "poetry-mirror": ("poetry==2.5.1", "poetry-plugin-pypi-mirror==0.6.5"),
    "pdm": ("pdm==2.29.4", "hishel==1.4.0"),
    "hatch": ("hatch==1.18.2",),
    "pipx": ("pipx==1.18.4",),
    "pex": ("pex==2.105.2",),
    "pip-tools": ("pip-tools==7.6.2", "pip==26.3"),
}
"""Environments, and what is in each. uv is that of the tests' own environment."""
PROGRAMS = {"pip26": "pip", "pip23": "pip", "poetry-mirror": "poetry", "pip-tools": "pip-compile"}


@dataclass(frozen=True)
class Packagers:
    """``root``: where the environments are."""

    root: Path

    def python(self, name: str) -> str:
        return str(self.root / name / "bin/python")

    def path(self, *names: str) -> str:
        """A ``PATH`` with exactly these programs, and the system's."""
        folder = self.root / "paths" / "+".join(names)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            program = PROGRAMS.get(name, name)
            real = BESIDE / "uv" if name == "uv" else self.root / name / "bin" / program
            with contextlib.suppress(FileExistsError):  # by the other stream of tests
                (folder / program).symlink_to(real)
        return f"{folder}:/usr/bin:/bin"


def run(
    *words: str, env: Mapping[str, str], cwd: Path, stdin: str = "", timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """One program, with nothing in its environment but ``env``."""
    return subprocess.run(
        words, env=dict(env), cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )


def install(run_directory: Path) -> Packagers:
    """The programs, installed once for all streams of a run."""
    root = (run_directory.parent if "PYTEST_XDIST_WORKER" in os.environ else run_directory) / "packagers"
    with filelock.FileLock(f"{root}.lock"):
        if not (root / "made").exists():
            root.mkdir(exist_ok=True)
            with ThreadPoolExecutor(2) as pool:
                failed = [told for told in pool.map(lambda pair: _install(root, *pair), WANTED.items()) if told]
            if failed:
                (pytest.fail if "process" in REQUIRED else pytest.skip)(f"clients can't be installed: {failed}")
            (root / "made").touch()
    return Packagers(root)


def _install(root: Path, name: str, packages: tuple[str, ...]) -> str:
    uv, where = str(BESIDE / "uv"), root / name
    for words in (
        (uv, "venv", "--quiet", "--python", sys.executable, str(where)),
        (uv, "pip", "install", "--quiet", "--python", str(where / "bin/python"), *packages),
    ):
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            return done.stderr
    return ""
