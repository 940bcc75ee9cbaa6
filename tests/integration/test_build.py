"""Container builds: each builder that is here installs from the index, and leaves nothing of it behind."""

from __future__ import annotations

import base64
import json
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

from deployer.clients.transparent.authority import certificate
from deployer.clients.transparent.routes import Mirror
from deployer.clients.transparent.tunnel import Plan, Tunnel
from deployer.host.relay import device_of
from deployer.operations.build_network import Way
from deployer.testing import RunningIndex, running_index
from tests.engines import BASE, need
from tests.integration.image_builders import BUILDERS, PIP, ImageBuilder, image_builder, need_compose
from tests.network_lab import Namespace
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

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


USUAL = ("classic", "buildkit", "podman")
"""Builders that are tried each time here; test_build_transparent.py tries every one."""


@pytest.fixture(params=[pytest.param(name, marks=() if name in USUAL else pytest.mark.endurance) for name in BUILDERS])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageBuilder:
    return image_builder(request.param, monkeypatch, tmp_path)


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_a_second_build_asks_no_upstream(
    index: RunningIndex, upstream: Upstream, builder: ImageBuilder, network: str, tmp_path: Path
) -> None:
    """And no step finds anything of the index in the image."""
    if network == "bridge" and builder.engine != "docker":
        pytest.skip("podman makes its bridge when a container starts; nerdctl's BuildKit uses the host's network here")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(FILE)
    image = f"localhost/deployer-test-build:{uuid.uuid4().hex[:8]}"
    bridge = () if network == "host" else ("--network=default",)
    with builder.removing(image):
        builder.build(index, "--no-cache", "-t", image, *bridge, str(context))
        asked = len(upstream.requests)
        assert asked
        said = builder.build(index, "--no-cache", "-t", image, *bridge, str(context))
        assert len(upstream.requests) == asked
        found = builder.run(image, "ls /target; cat /etc/pip.conf /etc/uv/uv.toml; env")
        assert "app-1.0.dist-info" in found
        assert "+simple" not in found
        assert "+simple" not in builder.history(image)  # the stage that installs is another one
        assert ("classic builder" in said) is (builder.kind == "classic")


@pytest.mark.parametrize("kind", ["classic", "podman", "nerdctl"])
def test_services_of_a_compose_file(
    index: RunningIndex, upstream: Upstream, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a file, and from the compose file itself, with its own arguments; one without a build is left alone."""
    builder = image_builder(kind, monkeypatch, tmp_path / "config")
    need_compose(builder, monkeypatch)
    project = tmp_path / f"project{uuid.uuid4().hex[:8]}"
    (project / "web").mkdir(parents=True)
    step = f"RUN {PIP} install --no-cache-dir --target /target"
    (project / "web/Dockerfile").write_text(f'FROM {BASE}\nARG WHO\n{step} app\nRUN echo "$WHO" > /who\n')
    services = {
        "web": {"image": f"localhost/{project.name}-web:1", "build": {"context": "web", "args": {"WHO": "a$$b"}}},
        "worker": {
            "image": f"localhost/{project.name}-worker:1",
            "build": {"context": ".", "dockerfile_inline": f"FROM {BASE}\n{step} other\n".replace("$", "$$")},
        },
        "database": {"image": "localhost/nothing-of-this-name:1"},
    }
    (project / "team.yaml").write_text(json.dumps({"services": services}))
    web, worker = (str(services[name]["image"]) for name in ("web", "worker"))
    words = ("--compose", "--", "-f", "team.yaml", "--no-cache")
    with builder.removing(web, worker):
        builder.build(index, *words, cwd=project)
        asked = len(upstream.requests)
        builder.build(index, *words, "web", cwd=project)
        assert len(upstream.requests) == asked
        assert {"app.py", "a$b"} <= set(builder.run(web, "ls /target; cat /who /etc/pip.conf").split())
        assert "other.py" in builder.run(worker, "ls /target")


def test_compose_files_that_can_not_be_built(
    index: RunningIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = image_builder("nerdctl", monkeypatch, tmp_path)
    for text, code, cause in (
        ("services: {a: {image: b}}", 2, "no service that is built"),
        ("services: {a: {build: nowhere}}", 2, "nowhere/Dockerfile can't be read"),
        ("services: [", 4, "nerdctl compose config: "),
    ):
        (tmp_path / "compose.yaml").write_text(text)
        done = builder.tried(index, "--compose", cwd=tmp_path)
        assert (done.returncode, cause in done.stderr, "hint" in done.stderr) == (code, True, True), done.stderr


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
def test_other_hosts_do_not_reach_the_relay(tmp_path: Path) -> None:
    """Neither that of the index nor that of a transparent build's tunnel."""
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
            tunnel = socket.create_server(("127.0.0.1", 0))
            with other.inside():
                elsewhere = socket.create_server(("10.97.0.2", 0))
            far = elsewhere.getsockname()[1]
            threading.Thread(target=_tunnel(tmp_path, server).serve, args=(tunnel,), daemon=True).start()
            way = Way(gateway="10.98.0.1", device=device_of("10.98.0.1"))
            assert way.device == "br9"
            with way.to(*server.getsockname()) as (address, port), way.to(*tunnel.getsockname()) as (_, proxy):
                assert address == "10.98.0.1"
                assert _heard(container, port) == "hello"
                assert _heard(host, port) == "hello"
                assert "Errno" in _heard(other, port)
                # Through the tunnel steps reach what else their bridge leads to, and not this host.
                assert "200" in _heard(container, proxy, _connect("10.97.0.2", far))
                for own in ("127.0.0.1", "10.98.0.1", "10.97.0.1"):
                    assert "502" in _heard(container, proxy, _connect(own, port))
                assert "407" in _heard(container, proxy, "CONNECT 10.97.0.2:9 HTTP/1.1\r\n\r\n")
                assert "Errno" in _heard(other, proxy, _connect("10.97.0.2", far))
            server.close()
            tunnel.close()
            elsewhere.close()
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


def _tunnel(directory: Path, index: socket.socket) -> Tunnel:
    """The tunnel of a build in a bridge."""
    made = certificate(["index.example.com"], directory=directory)
    address, port = index.getsockname()
    mirror = Mirror(view="/root/pypi/+canonical", url="https://index.example.com/simple/")
    plan = Plan(
        server=f"http://{address}:{port}",
        name="root/dev",
        mirrors=(mirror,),
        certificate=str(made.chain),
        key=str(made.key),
        roots=str(made.ca),
        token="word",
        owner=os.getpid(),
        isolated=True,
    )
    return Tunnel(plan)


def _connect(host: str, port: int) -> str:
    password = base64.b64encode(b"deployer:word").decode()
    return f"CONNECT {host}:{port} HTTP/1.1\r\nProxy-Authorization: Basic {password}\r\n\r\n"


def _heard(space: Namespace, port: int, sent: str = "") -> str:
    program = (
        "import socket\ntry:\n"
        f" there = socket.create_connection(('10.98.0.1', {port}), 3)\n there.sendall({sent.encode()!r})\n"
        " print(there.recv(99).decode())\n"
        "except OSError as error:\n print(repr(error), 'Errno')"
    )
    return space.run(sys.executable, "-I", "-c", program).strip()
