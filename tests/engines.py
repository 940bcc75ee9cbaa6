"""Which engines this host has for the tests, and what to do about those that it has not."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest

BASE = os.environ.get("DEPLOYER_TEST_BASE", "localhost/deployer-test-base:1")
"""An image with Python 3.11 or newer and venv; CONTRIBUTING.md says how one is made without a registry."""
REQUIRED = frozenset(filter(None, os.environ.get("DEPLOYER_TEST_REQUIRE", "").split(",")))


@cache
def why_not(engine: str) -> str:
    """Why ``engine`` can't be used here; empty when it can."""
    if engine == "process":
        from importlib.util import find_spec

        return "" if find_spec("devpi_server") else "devpi-server is not installed (pip install '.[server]')"
    if shutil.which(engine) is None:
        return f"{engine} is not installed"
    if subprocess.run([engine, "info"], capture_output=True, timeout=120, check=False).returncode:
        return f"{engine} is installed, but its engine does not answer"
    if subprocess.run([engine, "image", "inspect", BASE], capture_output=True, timeout=120, check=False).returncode:
        return f"{engine} has no base image {BASE} (see CONTRIBUTING.md)"
    return ""


def need(engine: str) -> None:
    """Skip the test when ``engine`` is not there; fail it when DEPLOYER_TEST_REQUIRE names it."""
    if reason := why_not(engine):
        if engine in REQUIRED:
            pytest.fail(f"{engine} is required here: {reason}")
        pytest.skip(reason)
