"""What all tests share: the same verdict each time, on however slow a machine and in however many streams."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from deployer import secrets

if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.streams import ByFile

# An example has no time limit, and which ones are tried does not change from run to run.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
# To look for new ones: HYPOTHESIS_PROFILE=explore pytest tests/unit
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=2000)
# To have an answer soon, many times over: nox -s mutants
settings.register_profile("few", settings.get_profile("same"), max_examples=5)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


# A shell without job control has what it starts in the background ignore Ctrl-C, also all that tests start then.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """What one test makes a secret is not blanked in the output of another one."""
    known = set(secrets._known)
    yield
    secrets._known.clear()
    secrets._known.update(known)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--endurance", action="store_true", help="also run the long tests that are marked endurance")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes minutes by its nature, such as fifty kills, and repeats; it is run by hand before a release."""
    if config.getoption("--endurance"):
        return
    for item in items:
        if item.get_closest_marker("endurance"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run it with --endurance"))
        elif _repeats(item):
            item.add_marker(pytest.mark.skip(reason="other parameters show the same: run it with --endurance"))


def _repeats(item: pytest.Item) -> bool:
    """Whether one of its parameters is named by its marker ``endurance_of``."""
    marker, spec = item.get_closest_marker("endurance_of"), getattr(item, "callspec", None)
    return marker is not None and spec is not None and any(f"-{one}-" in f"-{spec.id}-" for one in marker.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    from tests.streams import ByFile

    config.option.loadscopereorder = False
    return ByFile(config, log)
