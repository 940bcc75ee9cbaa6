"""What ``status`` says of a deployment that does not run, and ``down`` of data that is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.deployment.find import Deployment
from deployer.operations.purge import is_there
from deployer.operations.status import _unready
from deployer.spec import Mount, State, Volume
from tests.fake_engine import FakeEngine
from tests.scripted_engine import ScriptedEngine, container


@pytest.mark.parametrize(
    ("state", "told", "words"),
    [
        (State.STOPPED, {}, "devpi is stopped"),
        (State.STOPPED, {"exit_code": 3}, "devpi is stopped (exit code 3)"),
        (State.STOPPED, {"exit_code": 137, "oom_killed": True}, "devpi is stopped (out of memory (OOM-killed))"),
        (State.PAUSED, {}, "devpi is paused"),
        (State.CREATED, {"error": "port is taken"}, "devpi was created and never started (port is taken)"),
        (State.LOST, {"error": "killed"}, "devpi has ended (killed)"),
    ],
)
def test_a_server_that_does_not_run(state: State, told: dict[str, object], words: str) -> None:
    engine = ScriptedEngine().as_engine()
    deployment = Deployment(name="devpi", engine=engine, container=container(state, **told))
    error = _unready(deployment, {"ready": False, "state": "stopped"})
    assert error is not None
    assert error.message == words
    assert error.hint


def test_data_that_is_gone_is_not_said_to_be_kept(tmp_path: Path) -> None:
    engine = FakeEngine(volumes={"there": Volume(name="there")})
    deployment = Deployment(name="devpi", engine=engine, container=container())
    for kind, source, there in (
        ("volume", "there", True),
        ("volume", "gone", False),
        ("bind", str(tmp_path), True),
        ("bind", str(tmp_path / "gone"), False),
        ("bind", str(tmp_path / "f" / "below"), False),
    ):
        assert is_there(Mount(kind=kind, source=source, target="/data"), deployment) is there
