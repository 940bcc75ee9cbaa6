"""What unit tests of several topics need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client_place import Place
from tests.pip_host import Host


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def shared() -> Iterator[Place]:
    """A place that other users can reach (the folder of ``tmp_path`` is private)."""
    root = Path("/tmp") / f"deployer-test-{os.getpid()}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o755)
    yield Place(root)
    shutil.rmtree(root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a profile, and gives its path."""

    def write(text: str | bytes, name: str = "team.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write
