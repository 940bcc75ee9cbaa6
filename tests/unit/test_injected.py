"""Proxies that an engine's client adds by itself: known, and kept out of containers and builds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import DOCKER, NERDCTL, PODMAN, Dialect
from deployer.engines.injected import from_docker_config
from deployer.host.runner import Completed, Runner
from deployer.image import PipSettings, prepare
from deployer.profile.models import Network, Profile
from deployer.render import run_argv, run_script
from deployer.spec import BuildRequest, ContainerSpec, EngineName
from tests.unit.test_plan import FACTS, make

PROXY = "http://user:s3cret@127.0.0.1:9"
SPEC = ContainerSpec(name="a", image="b:1", withheld=("HTTP_PROXY", "http_proxy"))
BOTH = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of docker's client."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": PROXY}, "tcp://other": {"httpsProxy": PROXY, "noProxy": ""}}})
    )
    return tmp_path / "config.json"


def test_docker_adds_what_its_configuration_names(config: Path) -> None:
    assert from_docker_config({"DOCKER_CONFIG": str(config.parent)}) == BOTH
    assert DOCKER.injects({"HOME": str(config.parent / "none")}) == ()


def test_docker_s_configuration_in_the_home(tmp_path: Path, config: Path) -> None:
    (tmp_path / ".docker").mkdir()
    config.rename(tmp_path / ".docker/config.json")
    assert from_docker_config({"HOME": str(tmp_path)}) == BOTH


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"proxies": 1}', '{"proxies": {"default": []}}', "[" * 100_000, "\xff"]
)
def test_an_odd_configuration_adds_nothing(text: str, config: Path) -> None:
    config.write_text(text, encoding="latin-1")
    assert from_docker_config({"DOCKER_CONFIG": str(config.parent)}) == ()


def test_docker_is_given_blank_values() -> None:
    words = run_argv(SPEC, EngineName.DOCKER)
    assert [word for word in words if "proxy" in word.lower()] == ["--env=HTTP_PROXY=", "--env=http_proxy="]


def test_a_proxy_of_the_profile_stays() -> None:
    words = run_argv(replace(SPEC, env=(("HTTP_PROXY", "http://mine"),)), EngineName.DOCKER)
    assert [word for word in words if "proxy" in word.lower()] == ["--env=HTTP_PROXY=http://mine", "--env=http_proxy="]


@pytest.mark.parametrize("once", [False, True])
def test_podman_passes_nothing_on(once: bool) -> None:
    words = run_argv(SPEC, EngineName.PODMAN, once=once)
    assert [word for word in words if "proxy" in word.lower()] == ["--http-proxy=false"]


@pytest.mark.parametrize("engine", [EngineName.DOCKER, EngineName.PODMAN])
def test_scripts_keep_them_out_too(engine: EngineName) -> None:
    assert "--http-proxy=false" in run_script(SPEC, engine) or "--env=HTTP_PROXY=" in run_script(SPEC, engine)


@pytest.mark.parametrize("proxy", [False, True])
def test_a_plan_holds_back_what_the_client_adds(proxy: bool) -> None:
    facts = replace(FACTS, engine=replace(FACTS.engine, injects=BOTH), proxies={"HTTP_PROXY": "http://host"})
    spec = make(Profile(network=Network(mode="bridge", proxy=proxy)), facts).spec
    assert spec.blanks == (BOTH[1:] if proxy else BOTH)
    assert dict(spec.env).get("HTTP_PROXY") == ("http://host" if proxy else None)


class Building(Runner):
    """Keeps the words of a build."""

    def __init__(self) -> None:
        super().__init__()
        self.words: tuple[str, ...] = ()

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        self.words = tuple(argv)
        return iter(())

    def run(self, argv: Sequence[str], **_more: object) -> Completed:  # type: ignore[override]
        return Completed(argv=tuple(argv), returncode=0, stdout='[{"Id": "1"}]', stderr="")


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        (DOCKER, [f"--build-arg={name}=" for name in ("http_proxy", "HTTPS_PROXY", "https_proxy")]),
        (PODMAN, ["--http-proxy=false"]),
        (NERDCTL, []),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_build_gets_no_proxy_of_the_client(
    dialect: Dialect, told: list[str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    runner = Building()
    images = ArgvEngine(dialect, runner=runner).images
    images.build(BuildRequest(context=tmp_path, tag="t", from_environment=("HTTP_PROXY",)), lambda line: None)
    words = [word for word in runner.words if word.startswith("--") and "proxy" in word.lower()]
    # The proxy that the profile asks for comes from the environment: no command line shows its password.
    assert sorted(words) == sorted([*told, "--build-arg=HTTP_PROXY"])
    assert not any("s3cret" in word for word in runner.words)


@pytest.mark.parametrize(("pip_proxy", "names"), [("", ("HTTP_PROXY",)), ("http://pip", ())])
def test_a_proxy_of_pip_wins_in_a_build(pip_proxy: str, names: tuple[str, ...], tmp_path: Path) -> None:
    settings = PipSettings(proxy=pip_proxy)
    request = prepare(tmp_path, base="b", pip=settings, secrets_ok=False, from_environment=("HTTP_PROXY",))
    assert request.from_environment == names
