"""``deployer build --transparent``: steps keep the upstream's addresses, and nothing of it is left behind.

The upstream is an imitation of the clients' default index, with TLS, which the index reaches through a proxy that knows
its names; so a lock file of the public index is what it is elsewhere.
"""

from __future__ import annotations

import json
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
from tests.integration.test_tutorials import blocks
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


def test_a_lock_file_of_the_public_index_is_installed_from_the_cache(
    index: RunningIndex, upstream: Upstream, context: Path, builder: ImageBuilder, image: str
) -> None:
    cached = ("--layers",) if builder.kind == "buildah" else ()
    words = ("--transparent", *cached)
    stage = f"{image}-stage"
    with builder.removing(image, stage):
        whole = (*words, "--no-cache", "--target=built", "-t", stage, str(context))
        builder.build(index, *whole)
        upstream.forget()
        assert "Successfully installed" in builder.build(index, *whole)
        assert upstream.requests == ()
        kept = builder.history(stage) + builder.ask("image", "inspect", stage)
        assert "deployer:" not in kept and "http://" not in kept
        assert ("deployer-roots" in kept) is (builder.kind not in ("nerdctl", "classic"))
        # Another tunnel, with another port, password and CA, gets what was built with this one.
        shutil.rmtree(Path(index._env["DEPLOYER_STATE_DIR"], index.name, "transparent"))
        said = builder.build(index, *words, "-t", image, str(context))
        assert "Successfully installed" not in said
        found = builder.run(image, f"ls /target /app/.venv/lib/*/site-packages; {LEFT}")
        assert {"package_9.py", "demo_dep.py"} <= set(found.split())
        assert not any(word in found for word in ("/etc/", "/run/secrets", "PROXY", "proxy", "SSL", "BUNDLE"))


@pytest.mark.parametrize("kind", ["classic", "buildkit"])
def test_a_build_in_a_bridge(
    index: RunningIndex,
    upstream: Upstream,
    context: Path,
    kind: str,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    builder = image_builder(kind, monkeypatch, tmp_path)
    with builder.removing(image):
        for _ in range(2):
            upstream.forget()
            builder.build(index, "--transparent", "--no-cache", "--network=default", "-t", image, str(context))
        assert upstream.requests == ()
        assert "demo_dep.py" in builder.run(image, "ls /app/.venv/lib/*/site-packages")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--build-arg", "HTTPS_PROXY=http://proxy.example.com:3128", "."], "--build-arg HTTPS_PROXY would lead past"),
        (["--http-proxy=false", "."], "--http-proxy=false would lead past"),
    ],
)
def test_what_leads_past_the_index_is_refused(
    index: RunningIndex, context: Path, words: list[str], cause: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder = image_builder("podman", monkeypatch, tmp_path)
    done = builder.tried(index, "--transparent", *words, cwd=context)
    assert (done.returncode, cause in done.stderr, "hint" in done.stderr) == (11, True, True), done.stderr

    done = builder.tried(index, "--transparent", "--flags")
    assert (done.returncode, "--flags can't be transparent" in done.stderr) == (2, True)


def test_the_page(
    index: RunningIndex, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: str
) -> None:
    """Each line of it does what it says, with nerdctl; the base image has another name here, and its pip, too."""
    builder = image_builder("nerdctl", monkeypatch, tmp_path / "docker")
    project = tmp_path / uuid.uuid4().hex[:8]
    project.mkdir()
    (text,) = blocks("../how-to/image-builds.md", "dockerfile")
    text = text.replace("python:3.13-slim", BASE).replace(
        "pip install", f"{PIP} install --target /target/{project.name}"
    )  # no layer of another run
    (project / "Dockerfile").write_text(text)
    services = {"web": {"build": "."}, "other": {"build": ".", "profiles": ["extra"]}}
    for name in ("compose.yaml", "team.yaml"):
        (project / name).write_text(json.dumps({"services": services}))
    lines = [line for block in blocks("../how-to/image-builds.md", "sh") for line in block.splitlines()]
    lines = [line for line in lines if "deployer build" in line]
    images = (image, f"{project.name}-web", f"{project.name}-other")
    with builder.removing(*images):
        for number, line in enumerate(lines):
            words = line.replace(" app ", f" {image} ").removeprefix("deployer build ").split()
            if line.startswith("docker build $(deployer build --flags)"):
                (project / "Dockerfile").write_text(text.replace("RUN", "ARG PIP_INDEX_URL\nRUN"))
                flags = index.run("build", "--builder", "nerdctl", "--flags")["flags"]
                builder.ask("build", *flags, "-t", image, str(project))
            else:
                builder.build(index, *words, cwd=project)
            if number <= 1:  # the first tunnel has the index find out where files are
                upstream.forget()
        assert len(lines) == 5
        assert upstream.requests == ()
        for one in images[:2]:
            assert "iniconfig" in builder.run(one, "ls /target/*")


@pytest.mark.endurance
def test_poetry_installs_a_lock_file_of_the_public_index(
    index: RunningIndex,
    upstream: Upstream,
    authority: Authority,
    proxy: ForwardProxy,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    builder = image_builder("nerdctl", monkeypatch, tmp_path / "docker")
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
