"""The fixtures that pytest finds where deployer is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from deployer.testing.index import RunningIndex


@pytest.fixture(scope="session")
def deployer_index_options() -> dict[str, Any]:
    """Arguments of ``running_index``; override it in a ``conftest.py``."""
    return {}


@pytest.fixture(scope="session")
def deployer_index(deployer_index_options: dict[str, Any]) -> Iterator[RunningIndex]:
    """A package index of its own for the session: ``deployer.testing.RunningIndex``."""
    from deployer.testing.index import running_index

    with running_index(**deployer_index_options) as index:
        yield index
