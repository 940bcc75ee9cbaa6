"""The clients that make lock files, each in an environment of its own, at versions that are known to work together."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import platformdirs
import pytest

from tests.engines import REQUIRED

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "pip": ("pip==26.3", "pip-tools==7.6.2"),
    "poetry": ("poetry==2.5.1",),
    "pdm": ("pdm==2.29.4", "hishel==1.4.0"),
}
"""By the name of the environment. pdm does not work with every hishel that it allows."""


def installed() -> Path:
    """The directory of all environments, made by pip, as this user has configured it, and kept from run to run."""
    digest = hashlib.sha256(repr((sorted(REQUIREMENTS.items()), sys.version)).encode()).hexdigest()[:16]
    where = platformdirs.user_cache_path("deployer-tests") / f"client-tools-{digest}"
    where.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{where}.lock"):
        if not (where / "made").exists():
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda name: _install(where / name, REQUIREMENTS[name]), REQUIREMENTS))
            (where / "made").touch()
    return where


def _install(where: Path, requirements: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", where], check=True, capture_output=True)
    pip = (sys.executable, "-m", "pip", "--python", str(where / "bin/python"), "install", "--quiet", "--no-compile")
    command = [*pip, "--disable-pip-version-check", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        (pytest.fail if REQUIRED else pytest.skip)(f"{requirements[0]} can't be installed: {done.stderr}")
