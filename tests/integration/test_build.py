"""Container builds: each builder that is here installs from the index, and leaves nothing of it behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.host.relay import device_of, relaying
from deployer.testing import RunningIndex, running_index
from tests.engines import BASE, REQUIRED, need
from tests.network_lab import Namespace
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

BUILDX = os.environ.get("DEPLOYER_TEST_BUILDX", "")
"""The program, where docker does not have it."""
PIP = "python3 $(ls /usr/share/python-wheels/pip-*.whl)/pip"
"""As Debian ships it."""
FILE = f"""\
FROM {BASE} AS built
RUN {PIP} install --no-cache-dir --target /target app \\
  # a comment
  && {PIP} install --no-cache-dir --target /other other
FROM {BASE}
COPY --from=built /target /target
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    wheels = [make_wheel("app", "1.0", requires=("library",)), make_wheel("library", "1.0"), make_wheel("other", "1.0")]
    with Upstream(wheels) as running:
        yield running


@pytest.fixture(scope="module")
def index(upstream: Upstream) -> Iterator[RunningIndex]:
    with running_index(upstream=upstream.simple_url) as running:
        yield running


@pytest.fixture(params=["classic", "buildkit", "podman", "buildah", "nerdctl"])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A builder that is here; docker's is the classic one where it finds no buildx."""
    engine = {"classic": "docker", "buildkit": "docker", "buildah": "podman"}.get(request.param, request.param)
    need(engine)
    if request.param == "buildah" and shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    if engine == "docker":
        # docker finds its plugins there: for the classic builder none, and no other test gets BuildKit.
        (tmp_path / "docker/cli-plugins").mkdir(parents=True)
        (tmp_path / "docker/config.json").write_text("{}")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        if request.param == "buildkit" and BUILDX:
            (tmp_path / "docker/cli-plugins/docker-buildx").symlink_to(BUILDX)
        has = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
        if request.param == "buildkit" and not has and "buildx" in REQUIRED:
            pytest.fail("buildx is required here")
        if (request.param == "buildkit") is not has:
            pytest.skip("docker has buildx for all users" if has else "docker has no buildx (DEPLOYER_TEST_BUILDX)")
    return str(request.param)


def build(index: RunningIndex, builder: str, context: Path, *words: str) -> str:
    name = {"classic": "docker", "buildkit": "docker"}.get(builder, builder)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deployer", "build", "--builder", name, *words, str(context)],
        env={**index._env, **{name: value for name, value in os.environ.items() if name == "DOCKER_CONFIG"}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_a_second_build_asks_no_upstream(
    index: RunningIndex, upstream: Upstream, builder: str, network: str, tmp_path: Path
) -> None:
    """And no step finds anything of the index in the image."""
    if network == "bridge" and builder in ("podman", "buildah", "nerdctl"):
        pytest.skip("podman makes its bridge when a container starts; nerdctl's BuildKit uses the host's network here")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(FILE)
    engine = {"classic": "docker", "buildkit": "docker", "buildah": "podman"}.get(builder, builder)
    image = f"localhost/deployer-test-build:{uuid.uuid4().hex[:8]}"
    bridge = () if network == "host" else ("--network=default",)
    try:
        build(index, builder, context, "--no-cache", "-t", image, *bridge)
        asked = len(upstream.requests)
        assert asked
        said = build(index, builder, context, "--no-cache", "-t", image, *bridge)
        assert len(upstream.requests) == asked
        left = "ls /target; cat /etc/pip.conf /etc/uv/uv.toml; env"
        ran = subprocess.run(
            [engine, "run", "--rm", "--network=none", image, "sh", "-c", left],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "app-1.0.dist-info" in ran.stdout
        assert "+simple" not in ran.stdout
        history = subprocess.run(
            [engine, "history", "--no-trunc", image], capture_output=True, text=True, check=True
        ).stdout
        assert "+simple" not in history  # the stage that installs is another one
        assert ("classic builder" in said) is (builder == "classic")
    finally:
        subprocess.run([engine, "rmi", "-f", image], capture_output=True, check=False)


def test_a_failed_build_has_its_own_exit_code(index: RunningIndex, tmp_path: Path) -> None:
    need("podman")
    (tmp_path / "Containerfile").write_text(f"FROM {BASE}\nRUN exit 7\n")
    words = [sys.executable, "-P", "-m", "deployer", "build", "--builder", "podman", str(tmp_path)]
    done = subprocess.run(words, env=dict(index._env), capture_output=True, text=True, check=False)
    direct = subprocess.run(["podman", "build", str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == direct.returncode != 0
    assert "Traceback" not in done.stderr


def test_options_for_a_file_that_declares_them(index: RunningIndex) -> None:
    need("podman")
    flags = index.run("build", "--builder", "podman", "--flags")["flags"]
    assert flags[0] == "--network=host"
    assert f"--build-arg=PIP_INDEX_URL={index.index_url}" in flags


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["-t", "x"], "no build context"),
        (["nowhere"], "nowhere is no directory"),
        (["-f", "-", "."], "standard input"),
        (["-f", "nothing", "."], "nothing can't be read"),
    ],
)
def test_what_can_not_be_built(index: RunningIndex, words: list[str], cause: str) -> None:
    need("podman")
    argv = [sys.executable, "-P", "-m", "deployer", "build", "--builder", "podman", *words]
    done = subprocess.run(argv, env=dict(index._env), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert cause in done.stderr
    assert "hint" in done.stderr


# The relay: a bridge's containers reach it, and no other host does


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("ip") is None, reason="a network of its own needs root and ip")
def test_other_hosts_do_not_reach_the_relay() -> None:
    host, container, other = Namespace(), Namespace(), Namespace()
    try:
        host.run("ip", "link", "add", "br9", "type", "bridge")
        host.run("ip", "addr", "add", "10.98.0.1/24", "dev", "br9")
        host.run("ip", "link", "set", "br9", "up")
        for end, space, address in (("c0", container, "10.98.0.2/24"), ("o0", other, "10.97.0.2/24")):
            host.run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space.name)
            host.run("ip", "link", "set", end, "up")
            space.run("ip", "addr", "add", address, "dev", "eth0")
            space.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "link", "set", "c0", "master", "br9")
        host.run("ip", "addr", "add", "10.97.0.1/24", "dev", "o0")
        other.run("ip", "route", "add", "10.98.0.0/24", "via", "10.97.0.1")
        with host.inside():
            server = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=_greet, args=(server,), daemon=True).start()
            assert device_of("10.98.0.1") == "br9"
            with relaying("10.98.0.1", "br9", port=0, to=server.getsockname()) as port:
                assert _heard(container, port) == "hello"
                assert _heard(host, port) == "hello"
                assert "Errno" in _heard(other, port)
            server.close()
    finally:
        for space in (host, container, other):
            space.remove()


def _greet(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"hello")


def _heard(space: Namespace, port: int) -> str:
    program = (
        "import socket\ntry:\n"
        f" print(socket.create_connection(('10.98.0.1', {port}), 3).recv(9).decode())\n"
        "except OSError as error:\n print(repr(error), 'Errno')"
    )
    return space.run(sys.executable, "-I", "-c", program).strip()
