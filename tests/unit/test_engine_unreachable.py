"""An engine that can't be used from here: its own cause is shown, and the cure fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import DOCKER, NERDCTL, PODMAN, Dialect
from deployer.errors import EngineError, EngineUnreachable
from deployer.host.runner import Completed, Runner
from deployer.plan.conflicts import check_here
from deployer.spec import ContainerSpec, EngineInfo, EngineName

ADDRESSES = ("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINER_CONNECTION")
INIT = "Failed to initialize: unable to resolve docker endpoint: "
LOST = f'{INIT}context "lost": context not found: open /h/.docker/contexts/meta/76/meta.json: no such file or directory'
NOTARY = "docker: Error: error contacting notary server: dial tcp 127.0.0.1:443: connect: connection refused"
ANSWER = '{"Client": {"Context": "%s"}, "Server": {"Version": "28.2.2"}}'
PODMAN_ANSWER = '{"Client": {"APIVersion": "4.3.1", "Version": "4.3.1", "OsArch": "linux/amd64"}}'


class Client(Runner):
    """Answers by the first word after the name of the program, "" for any other: (exit code, stdout, stderr)."""

    def __init__(self, answers: Mapping[str, tuple[int, str, str]]) -> None:
        super().__init__()
        self._answers = answers

    def run(self, argv: Sequence[str], **_more: object) -> Completed:  # type: ignore[override]
        code, out, err = self._answers.get(argv[1]) or self._answers[""]
        return Completed(argv=tuple(argv), returncode=code, stdout=out, stderr=err)


def failing(stderr: str, *, dialect: Dialect = DOCKER) -> ArgvEngine:
    return ArgvEngine(dialect, runner=Client({"": (1, "", stderr)}))


@pytest.fixture(autouse=True)
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients are installed, and nothing leads to another engine."""
    for name in ("docker", "podman", "nerdctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (LOST, "docker context use NAME"),
        (f"{INIT}open /nope/ca.pem: no such file or directory", "DOCKER_CERT_PATH"),
        (f"{INIT}invalid SSH URL: plain-text password is not supported", "DOCKER_HOST"),
        (
            "Cannot connect to the Docker daemon at unix:///nope. Is the docker daemon running?",
            "systemctl start docker",
        ),
    ],
    ids=["context", "certificate", "address", "down"],
)
def test_a_client_without_an_engine_shows_its_cause(said: str, cure: str) -> None:
    engine = failing(said)
    for ask in (engine.probe, lambda: engine.inspect("a"), lambda: engine.volume("a"), lambda: engine.remove("a")):
        with pytest.raises(EngineUnreachable) as caught:
            ask()
        assert said in caught.value.message
        assert cure in caught.value.hint
        if "systemctl" not in cure:
            assert "systemctl" not in caught.value.hint
    for ask in (lambda: engine.volume_remove("a"), lambda: engine.images.find("a"), lambda: engine.images.remove("a")):
        with pytest.raises(EngineUnreachable):  # nothing is taken for absent where nobody answered
            ask()


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: Get https://registry.example.com/v2/: dial tcp 10.0.0.1:443: connection refused",
        "Error response from daemon: error while creating mount source path '/x': mkdir /x: permission denied",
        "OCI runtime create failed: exec: open /etc/passwd: no such file or directory: unknown",
    ],
)
@pytest.mark.parametrize("dialect", [DOCKER, PODMAN, NERDCTL], ids=lambda dialect: dialect.name)
def test_an_engine_that_answers_is_not_said_to_be_down(said: str, dialect: Dialect) -> None:
    with pytest.raises(EngineError) as caught:
        failing(said, dialect=dialect).rename("a", "b")
    assert not isinstance(caught.value, EngineUnreachable)
    assert said in caught.value.message
    assert "start" not in caught.value.hint


def test_content_trust_is_named() -> None:
    with pytest.raises(EngineError, match="error contacting notary server") as caught:
        failing(NOTARY).run(ContainerSpec(name="a", image="b"))
    assert not isinstance(caught.value, EngineUnreachable)
    assert "unset DOCKER_CONTENT_TRUST" in caught.value.hint


def test_a_remote_engine_that_does_not_answer_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://build:2375")
    with pytest.raises(EngineUnreachable, match="engine at tcp://build:2375 does not answer") as caught:
        failing("Cannot connect to the Docker daemon at tcp://build:2375. Is the docker daemon running?").probe()
    assert "unset DOCKER_HOST" in caught.value.hint
    assert "systemctl" not in caught.value.hint


@pytest.mark.parametrize(
    ("address", "context", "endpoint", "remote"),
    [
        ("", "default", "", ""),
        ("unix:///run/user/1/docker.sock", "default", "", ""),
        ("tcp://127.0.0.1:2375", "default", "", "tcp://127.0.0.1:2375"),
        ("ssh://me:secret@build", "default", "", "ssh://****@build"),
        ("", "desktop-linux", "unix:///home/me/.docker/desktop/docker.sock", ""),
        ("", "build", "ssh://build", "ssh://build"),
    ],
)
def test_where_an_engine_is(
    address: str, context: str, endpoint: str, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address:
        monkeypatch.setenv("DOCKER_HOST", address)
    runner = Client({"version": (0, ANSWER % context, ""), "context": (0, f"{endpoint}\n", ""), "info": (0, "{}", "")})
    info = ArgvEngine(DOCKER, runner=runner).probe()
    assert info.remote == remote


def test_a_deployment_on_a_remote_engine_is_refused_before_any_effect() -> None:
    check_here(EngineInfo(name=EngineName.DOCKER, version="1"))
    with pytest.raises(EngineError, match="docker's engine is at ssh://build") as caught:
        check_here(EngineInfo(name=EngineName.DOCKER, version="1", remote="ssh://build"))
    assert "run deployer on that host" in caught.value.hint


def test_podman_under_the_name_of_docker_is_named() -> None:
    runner = Client(
        {"version": (0, PODMAN_ANSWER, ""), "--version": (0, "podman version 4.3.1\n", ""), "": (0, "{}", "")}
    )
    with pytest.raises(EngineUnreachable, match="docker runs podman, not docker") as caught:
        ArgvEngine(DOCKER, runner=runner).probe()
    assert caught.value.hint == "--engine podman"
