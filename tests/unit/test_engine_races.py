"""An engine that cleans up or restarts a container by itself while it is stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

import pytest

from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import DOCKER, NERDCTL, PODMAN, Dialect
from deployer.errors import EngineError
from deployer.host.runner import Completed, Runner

REFUSED = "Error: container 19c2049a3b71 is running or paused, refusing to clean up: container state improper"


class Restarts(Runner):
    """A container that the engine starts again during the first ``restarts`` stops."""

    def __init__(self, restarts: int, stderr: str = REFUSED) -> None:
        super().__init__()
        self.left, self.stops, self._stderr, self._state = restarts, 0, stderr, "running"

    def run(self, argv: Sequence[str], **_more: object) -> Completed:
        if argv[1] == "stop":
            self.stops += 1
            failed = self.left > 0
            self.left -= failed
            self._state = "running" if failed else "exited"
            return Completed(argv=tuple(argv), returncode=125 * failed, stdout="", stderr=self._stderr * failed)
        state = {"Status": self._state}
        return Completed(argv=tuple(argv), returncode=0, stdout=json.dumps([{"Name": "a", "State": state}]), stderr="")


def test_a_stop_that_met_podmans_own_restart_is_repeated() -> None:
    runner = Restarts(2)
    ArgvEngine(PODMAN, runner=runner).stop("a", timeout=timedelta(seconds=1))
    assert runner.stops == 3


@pytest.mark.parametrize(("dialect", "stderr"), [(DOCKER, REFUSED), (PODMAN, "Error: no space left on device")])
def test_any_other_failure_of_a_stop_is_shown(dialect: Dialect, stderr: str) -> None:
    runner = Restarts(1, stderr)
    with pytest.raises(EngineError, match=stderr.removeprefix("Error: ")):
        ArgvEngine(dialect, runner=runner).stop("a", timeout=timedelta(seconds=1))
    assert runner.stops == 1


class StartsLate(Runner):
    """A container that had ended before it was stopped, and that containerd starts after that ``late`` looks later."""

    def __init__(self, state: str, late: int) -> None:
        super().__init__()
        self.stops, self.state, self._late, self._looks = 0, state, late, 0

    def run(self, argv: Sequence[str], **_more: object) -> Completed:
        if argv[1] == "stop":
            self.stops += 1
            self.state = "exited"
        elif self.stops == 1:
            self._looks += 1
            self.state = "running" if self._looks == self._late else self.state
        state = {"Status": self.state}
        return Completed(argv=tuple(argv), returncode=0, stdout=json.dumps([{"Name": "a", "State": state}]), stderr="")


@pytest.mark.parametrize(
    ("state", "late", "stops"),
    [
        ("exited", 1, 2),
        ("exited", 3, 2),
        ("exited", 0, 1),
        ("running", 1, 1),  # containerd looks again in ten seconds, and sees that it was stopped
    ],
)
def test_what_containerd_had_chosen_to_start_is_stopped_again(state: str, late: int, stops: int) -> None:
    runner = StartsLate(state, late)
    ArgvEngine(NERDCTL, runner=runner).stop("a", timeout=timedelta(seconds=1))
    assert (runner.stops, runner.state) == (stops, "exited")
