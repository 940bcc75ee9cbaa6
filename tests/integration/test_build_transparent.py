"""``deployer build --transparent``: steps keep the upstream's addresses, and nothing of it is left behind.

The upstream is an imitation of the clients' default index, with TLS, which the index reaches through a proxy that knows
its names; so a lock file of the public index is what it is elsewhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.testing import RunningIndex, running_index
from tests.authority import Authority
from tests.engines import BASE
from tests.integration.client_tools import installed
from tests.integration.image_builders import BUILDERS, PIP, ImageBuilder, image_builder
from tests.network_lab import ForwardProxy
from tests.transparent_lab import FILES, INDEX, INDEX_URL, OTHER, projects, publish
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

UV = Path(sys.executable).with_name("uv")
TEN = [f"package-{number}" for number in range(10)]
PROJECT = """\
[project]
name = "acme"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["demo"]
"""
FILE = f"""\
FROM {BASE} AS tools
COPY uv /usr/local/bin/uv
FROM tools AS built
WORKDIR /app
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-install-project --no-cache
RUN {PIP} install --no-cache-dir --target /target {" ".join(TEN)}
FROM {BASE}
COPY --from=built /target /target
COPY --from=built /app /app
"""
LEFT = "ls -d /etc/pip.conf /etc/uv /etc/deployer* /run/secrets; env"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "own")


@pytest.fixture(scope="module")
def upstream(authority: Authority) -> Iterator[Upstream]:
    with Upstream(tls=authority.context(INDEX, names=(INDEX, FILES, OTHER))) as running:
        running.ranges = True
        publish(running, {**projects(), **{name: [make_wheel(name, "1.0")] for name in TEN}})
        yield running


@pytest.fixture(scope="module")
def proxy(upstream: Upstream) -> Iterator[ForwardProxy]:
    made = ForwardProxy(
        address="127.0.0.1",
        port=0,
        connect=lambda _host, _port: socket.create_connection(("127.0.0.1", upstream.port)),
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def index(authority: Authority, proxy: ForwardProxy) -> Iterator[RunningIndex]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", proxy.url)
        patch.setenv("SSL_CERT_FILE", str(authority.file))
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        network = {"network": {"ca_file": str(authority.file), "proxy": True}}
        with running_index(upstream=INDEX_URL, profile=network) as running:
            yield running


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, authority: Authority, proxy: ForwardProxy) -> Path:
    """A project with a lock file of the public index, made without us."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "pyproject.toml").write_text(PROJECT)
    (directory / "Dockerfile").write_text(FILE)
    shutil.copy(UV, directory / "uv")
    env = {**os.environ, "HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(authority.file)}
    subprocess.run([UV, "lock", "--no-config", "--no-cache"], cwd=directory, env=env, check=True, capture_output=True)
    lock = (directory / "uv.lock").read_text()
    assert INDEX_URL.rstrip("/") in lock and f"https://{FILES}/" in lock
    return directory


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageBuilder:
    return image_builder(request.param, monkeypatch, tmp_path)


@pytest.fixture
def image() -> str:
    return f"localhost/deployer-test-build:{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_a_lock_file_of_the_public_index_is_installed_from_the_cache(
    index: RunningIndex, upstream: Upstream, context: Path, builder: ImageBuilder, network: str, image: str
) -> None:
    if network == "bridge" and builder.engine != "docker":
        pytest.skip("podman makes its bridge when a container starts; nerdctl's BuildKit uses the host's network here")
    bridge = () if network == "host" else ("--network=default",)
    words = ("--transparent", "-t", image, *bridge)
    stage = f"{image}-stage"
    with builder.removing(image, stage):
        builder.build(index, *words, "--no-cache", str(context))
        upstream.forget()
        builder.build(index, *words, "--no-cache", str(context))
        assert upstream.requests == ()
        found = builder.run(image, f"ls /target /app/.venv/lib/*/site-packages; {LEFT}")
        assert {"package_9.py", "demo_dep.py"} <= set(found.split())
        assert not any(word in found for word in ("/etc/", "/run/secrets", "PROXY", "proxy", "SSL", "BUNDLE"))
        # The stage that installs, from the cache: another tunnel, with another port and password, changes nothing.
        cached = ("--layers",) if builder.kind == "buildah" else ()
        kept = [builder.build(index, *words[:1], *cached, "-t", stage, "--target=built", *bridge, str(context))]
        first = builder.identity(stage)
        kept.append(builder.build(index, *words[:1], *cached, "-t", stage, "--target=built", *bridge, str(context)))
        assert builder.identity(stage) == first
        history = builder.history(stage) + builder.ask("image", "inspect", stage)
        assert "deployer:" not in history.replace(f"{image.partition(':')[0]}:", "")
        assert "http://" not in history
        if builder.kind == "nerdctl":
            assert "deployer-roots" not in history and "PROXY" not in history


@pytest.mark.parametrize("kind", ["podman", "nerdctl"])
def test_poetry_installs_a_lock_file_of_the_public_index(
    index: RunningIndex,
    upstream: Upstream,
    authority: Authority,
    proxy: ForwardProxy,
    kind: str,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    builder = image_builder(kind, monkeypatch, tmp_path / "docker")
    poetry = installed() / "poetry"
    site = next(poetry.glob("lib/*/site-packages"))
    if "python3.11" not in str(site):
        pytest.skip("the base image has Python 3.11, and poetry here another one")
    context = tmp_path / "context"
    context.mkdir()
    (context / "pyproject.toml").write_text(PROJECT)
    env = {**os.environ, "HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": str(authority.file)}
    lock = [str(poetry / "bin/poetry"), "lock", "--no-cache"]
    subprocess.run(lock, cwd=context, env=env, check=True, capture_output=True)
    shutil.copytree(site, context / "poetry")
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\nWORKDIR /app\nCOPY poetry /poetry\nCOPY pyproject.toml poetry.lock ./\n"
        "RUN PYTHONPATH=/poetry POETRY_VIRTUALENVS_IN_PROJECT=1 python3 -m poetry install --no-root --no-cache -n\n"
    )
    with builder.removing(image):
        builder.build(index, "--transparent", "-t", image, str(context))
        upstream.forget()
        builder.build(index, "--transparent", "--no-cache", "-t", image, str(context))
        assert upstream.requests == ()
        assert "demo_dep.py" in builder.run(image, "ls /app/.venv/lib/*/site-packages")
