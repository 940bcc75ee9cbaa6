"""What engines answer, kept with their versions: read as the engine's binary would be, where there is none.

``recordings/`` has one file an engine and version; its ``origin`` says whether it was recorded or written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import DIALECTS
from deployer.engines.runner import Completed, Runner
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.spec import ContainerSpec, EngineName, Mount, NetworkMode, Port, State

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
BASE = "localhost/deployer-test-base:1"


class Replay(Runner):
    """Gives the answer of that name to whatever is run, and nothing is run; ``then`` to what is asked after it."""

    def __init__(self, answers: dict[str, Any], name: str, *, then: str) -> None:
        super().__init__()
        self._left = [answers[name], answers[then]]

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return Completed(argv=tuple(argv), returncode=answer["code"], stdout=answer["stdout"], stderr=answer["stderr"])


class Recorded:
    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        self.version: str = document["version"]
        self.answers: dict[str, Any] = document["answers"]
        self.dialect = DIALECTS[EngineName(document["engine"])]

    def engine(self, answer: str, *, then: str = "container-absent") -> ArgvEngine:
        if answer not in self.answers:
            pytest.skip(f"{self.dialect.name} has no answer {answer}")
        return ArgvEngine(self.dialect, runner=Replay(self.answers, answer, then=then))


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_the_version(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / recorded.dialect.name).write_text("#!/bin/sh\n")
    (tmp_path / recorded.dialect.name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    info = recorded.engine("version", then="info").probe()
    assert info.version.removeprefix("v").startswith(recorded.version)
    assert info.how == str(tmp_path / recorded.dialect.name)


def test_the_nature(recorded: Recorded) -> None:
    nature = recorded.dialect.nature(json.loads(recorded.answers["info"]["stdout"]))
    assert (nature.rootless, nature.unheld) == (False, ())
    if rootless := recorded.answers.get("info-rootless"):
        nature = recorded.dialect.nature(json.loads(rootless["stdout"]))
        assert (nature.rootless, nature.unheld) == (True, ("memory", "pids", "cpus"))


def test_a_container(recorded: Recorded) -> None:
    found = recorded.engine("inspect").inspect("rec-a")
    assert found is not None
    assert (found.name, found.state, found.ours, found.image) == ("rec-a", State.RUNNING, True, BASE)
    assert found.ports == (Port(host_ip="127.0.0.1", host_port=33141, container_port=3141),)
    assert set(found.mounts) == {
        Mount(kind="bind", source="/tmp", target="/data"),
        Mount(kind="volume", source="rec-volume", target="/kept"),
    }
    assert found.network is NetworkMode.BRIDGE
    assert found.pid
    assert found.started_at
    assert found.image_id == "" or found.image_id.startswith("sha256:")
    # Whatever an engine takes for a match, only the very name is meant.
    assert recorded.engine("inspect").inspect("rec") is None


def test_an_image(recorded: Recorded) -> None:
    found = recorded.engine("image").image(BASE)
    assert found is not None
    assert (found.ref, found.id.startswith("sha256:"), len(found.id)) == (BASE, True, 71)


def test_what_is_absent(recorded: Recorded) -> None:
    assert recorded.engine("container-absent").inspect("rec-none") is None
    assert recorded.engine("image-absent").image("localhost/none:0") is None
    recorded.engine("volume-absent").volume_remove("rec-none")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("run-image-absent", ImageUnavailable),
        ("run-name-taken", ConflictError),
        ("run-port-taken", ConflictError),
        ("runtime-refuses-host", EngineError),
        ("runtime-refuses-limit", EngineError),
    ],
)
def test_a_failed_run(recorded: Recorded, answer: str, error: type[EngineError]) -> None:
    with pytest.raises((EngineError, ConflictError)) as caught:
        recorded.engine(answer).run(ContainerSpec(name="rec-a", image=BASE))
    assert type(caught.value) is error
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert "level=" not in caught.value.message
    if answer.startswith("runtime-refuses"):
        assert "containers.conf" in caught.value.hint


def test_failures_of_what_is_not_there(recorded: Recorded) -> None:
    with pytest.raises(EngineError):
        recorded.engine("rename-absent").rename("rec-none", "rec-c")


def test_an_engine_that_is_down(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / recorded.dialect.name).write_text("#!/bin/sh\n")
    (tmp_path / recorded.dialect.name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable) as caught:
        recorded.engine("down").probe()
    assert "--engine process" in caught.value.hint
