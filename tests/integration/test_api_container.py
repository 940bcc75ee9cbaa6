"""The API client against an independent devpi: a plain devpi-server in a container that is not deployer's image."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.devpi.api import DevpiApi
from deployer.devpi.converge import apply
from deployer.devpi.declared import wanted
from deployer.devpi.difference import changes
from deployer.errors import NotReadyError
from deployer.profile.models import Profile
from deployer.secrets import Secret, generate

pytestmark = pytest.mark.docker

BASE = os.environ.get("DEPLOYER_TEST_BASE", "localhost/deployer-test-base:1")
IMAGE = "localhost/deployer-test-independent-devpi:1"
PORT = 3141
PASSWORD = "the password of a throw-away server"
DOCKERFILE = f"""\
FROM {BASE}
COPY ca.pem /ca.pem
ENV PIP_CERT=/ca.pem PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
ARG PIP_INDEX_URL
ARG PIP_DEFAULT_TIMEOUT
RUN python3 -m venv /opt/devpi && /opt/devpi/bin/pip install "devpi-server>=6.20.2,<7"
"""
# Given as a command, so that this image has nothing in common with what deployer builds.
SERVE = (
    "umask 077 && mkdir /srv/devpi && cd /srv/devpi"
    ' && DEVPISERVER_ROOT_PASSWD="$ROOT_PASSWORD" /opt/devpi/bin/devpi-init --serverdir data --no-root-pypi'
    " && /opt/devpi/bin/devpi-gen-secret --secretfile secret"
    f" && exec /opt/devpi/bin/devpi-server --serverdir data --secretfile secret --host 0.0.0.0 --port {PORT}"
    " --restrict-modify root --argon2-memory-cost 8 --argon2-time-cost 1 --argon2-parallelism 1"
)


def _docker(*words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout)


def _unavailable() -> str:
    """Why this can't be run here; empty when it can."""
    if shutil.which("docker") is None:
        return "no docker on PATH"
    if _docker("version", timeout=180).returncode:
        return "docker does not answer"
    if _docker("image", "inspect", BASE).returncode:
        return f"the base image {BASE} is absent (set DEPLOYER_TEST_BASE)"
    return ""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built once on a host (docker keeps the layers); the host's pip says how packages are reached."""
    if reason := _unavailable():
        if "docker" in os.environ.get("DEPLOYER_TEST_REQUIRE", ""):
            pytest.fail(f"docker is required: {reason}")
        pytest.skip(reason)
    context = tmp_path_factory.mktemp("image")
    (context / "Dockerfile").write_text(DOCKERFILE)
    shutil.copy(_ca_bundle(), context / "ca.pem")
    settings = {name: os.environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")}
    # A build argument stays in the image's history, so an address with credentials is not handed on.
    passed_on = [f"--build-arg={name}" for name, value in settings.items() if value and "@" not in value]
    built = _docker("build", "--network=host", "--tag", IMAGE, *passed_on, str(context))
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return IMAGE


def _ca_bundle() -> Path:
    import certifi

    return Path(os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or certifi.where())


@pytest.fixture(scope="module")
def url(image: str) -> Iterator[str]:
    """The address of a running container, published on loopback by testcontainers."""
    # Its helper, which removes what a killed run leaves, is an image of a registry that may be out of reach.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image).with_env("ROOT_PASSWORD", PASSWORD).with_command(["sh", "-c", SERVE])
    container.ports[PORT] = ("127.0.0.1", None)  # a free one of loopback; the package's own way opens it to all
    with container as running:
        address = f"http://127.0.0.1:{running.get_exposed_port(PORT)}"
        _until_it_answers(address, running)
        yield address


def _until_it_answers(address: str, running: object) -> None:
    end = time.monotonic() + 180
    with DevpiApi(address) as api:
        while True:
            try:
                api.identity()
                return
            except NotReadyError:
                logs = getattr(running, "get_logs")()  # noqa: B009 - the package is not typed
                assert time.monotonic() < end, logs
                time.sleep(0.1)


def test_seeds_a_devpi_that_is_not_ours(url: str) -> None:
    profile = Profile.model_validate(
        {
            "users": {"dev": {"email": "dev@example.com"}},
            "indexes": {
                "root/pypi": {"type": "mirror"},
                "root/dev": {"type": "stage", "bases": ["root/pypi"], "volatile": False},
                "dev/work": {"type": "stage", "bases": ["root/dev"]},
            },
        }
    )
    # Nothing is asked of this address: devpi only remembers it.
    goal = wanted(profile.users, profile.indexes, default_mirror_url="http://127.0.0.1:9/simple/")
    done: list[str] = []
    with DevpiApi(url) as api:
        identity = api.identity("ab" * 16)
        assert identity.proof is None
        api.login("root", Secret(PASSWORD))
        for _ in range(2):
            steps = changes(api.topology(), goal)
            apply(api, steps, on_change=lambda step: done.append(step.target), new_password=lambda _: generate())
        assert api.simple_status("root/dev").type == "stage"
        assert api.identity().uuid == identity.uuid
    assert done == ["dev", "root/pypi", "root/dev", "dev/work"]
