"""The container builders that are here, for tests of ``deployer build``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer.testing import RunningIndex
from tests.engines import REQUIRED, need

BUILDX = os.environ.get("DEPLOYER_TEST_BUILDX", "")
"""The program, where docker does not have it."""
COMPOSE = os.environ.get("DEPLOYER_TEST_COMPOSE", "")
"""docker's program for compose files, where docker does not have it."""
BUILDERS = ("classic", "buildkit", "podman", "buildah", "nerdctl")
"""docker's two, and those of the others."""
PIP = "python3 $(ls /usr/share/python-wheels/pip-*.whl)/pip"
"""As Debian ships it."""
_OF_BUILD = ("DOCKER_CONFIG", "LC_ALL", "PATH")


@dataclass(frozen=True)
class ImageBuilder:
    """``kind``: one of BUILDERS. ``engine``: the command that lists, runs and removes what it built."""

    kind: str
    engine: str

    @property
    def name(self) -> str:
        """As ``deployer build --builder`` has it."""
        return {"classic": "docker", "buildkit": "docker"}.get(self.kind, self.kind)

    def build(self, index: RunningIndex, *words: str, cwd: Path | None = None) -> str:
        """Run ``deployer build``; what it printed."""
        done = self.tried(index, *words, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def tried(self, index: RunningIndex, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = {**index._env, **{name: os.environ[name] for name in _OF_BUILD if name in os.environ}}
        argv = [sys.executable, "-P", "-m", "deployer", "build", "--builder", self.name, *words]
        return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=False)

    def ask(self, *words: str) -> str:
        """What the engine says."""
        done = subprocess.run([self.engine, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, image: str, script: str) -> str:
        """What a shell prints in a container of the image; its failure does not count."""
        words = [self.engine, "run", "--rm", "--network=none", image, "sh", "-c", script]
        # podman gives containers the proxy variables of its own environment.
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False).stdout

    def history(self, image: str) -> str:
        return self.ask("history", "--no-trunc", image)

    def identity(self, image: str) -> str:
        return self.ask("image", "inspect", "--format", "{{.Id}}", image).strip()

    @contextmanager
    def removing(self, *images: str) -> Iterator[None]:
        try:
            yield
        finally:
            subprocess.run([self.engine, "rmi", "-f", *images], capture_output=True, check=False)


def need_compose(builder: ImageBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip where the builder has no program for compose files."""
    if builder.engine == "docker" and COMPOSE:
        Path(os.environ["DOCKER_CONFIG"], "cli-plugins/docker-compose").symlink_to(COMPOSE)
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    argv = ["podman-compose"] if builder.engine == "podman" else [builder.engine, "compose"]
    if shutil.which(argv[0]) is None or subprocess.run([*argv, "version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{' '.join(argv)} is not here")


def image_builder(kind: str, monkeypatch: pytest.MonkeyPatch, directory: Path) -> ImageBuilder:
    """The builder ``kind`` where it is here; docker's is the classic one where it finds no buildx."""
    engine = {"classic": "docker", "buildkit": "docker", "buildah": "podman"}.get(kind, kind)
    need(engine)
    if kind == "buildah" and shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    if engine == "docker":
        # docker finds its plugins there: for the classic builder none, and no other test gets BuildKit.
        (directory / "docker/cli-plugins").mkdir(parents=True)
        (directory / "docker/config.json").write_text("{}")
        monkeypatch.setenv("DOCKER_CONFIG", str(directory / "docker"))
        if kind == "buildkit" and BUILDX:
            (directory / "docker/cli-plugins/docker-buildx").symlink_to(BUILDX)
        has = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
        if kind == "buildkit" and not has and "buildx" in REQUIRED:
            pytest.fail("buildx is required here")
        if (kind == "buildkit") is not has:
            pytest.skip("docker has buildx for all users" if has else "docker has no buildx (DEPLOYER_TEST_BUILDX)")
    return ImageBuilder(kind, engine)
