"""The images of nerdctl, docker and podman, through their command lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from deployer.engines.answers import image_from
from deployer.engines.client import Client
from deployer.engines.dialects import Dialect
from deployer.errors import ImageUnavailable
from deployer.spec import BuildRequest, EngineName, Image

REMOVE_TIMEOUT = 60.0
"""Seconds."""
TRANSFER_TIMEOUT = 3600.0
"""Seconds in which an image is saved or loaded: a slow disk takes long."""


class ArgvImages:
    """Implements :class:`deployer.engines.base.Images` by running a binary."""

    def __init__(self, dialect: Dialect, client: Client) -> None:
        self._dialect = dialect
        self._client = client

    @property
    def engine(self) -> EngineName:
        return self._dialect.name

    def find(self, ref: str) -> Image | None:
        raw = self._client.image(ref)
        return image_from(raw, ref) if raw is not None else None

    def tags(self, repository: str) -> tuple[str, ...]:
        done = self._client.checked("images", f"--filter=reference={repository}:*", "--format={{.Repository}}:{{.Tag}}")
        return tuple(sorted(set(done.stdout.split())))

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        self._client.streamed("pull", ref, on_line=on_line, failed=f"the image {ref} can't be pulled")
        return self._require(ref)

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        words = [*self._dialect.build, f"--tag={request.tag}"]
        words += [f"--build-arg={key}={value}" for key, value in request.build_args]
        words += [f"--build-arg={name}" for name in request.from_environment]
        words += [f"--build-arg={name}=" for name in self._blanks(request)]
        words += [f"--label={key}={value}" for key, value in request.labels]
        words += [f"--secret=id={name},src={path}" for name, path in request.secrets]
        failed = f"the image {request.tag} can't be built"
        self._client.streamed(*words, str(request.context), on_line=on_line, failed=failed)
        return self._require(request.tag)

    def _blanks(self, request: BuildRequest) -> tuple[str, ...]:
        """The build arguments that its client would add, and must not."""
        given = {*dict(request.build_args), *request.from_environment}
        added = self._dialect.injects(os.environ) if self._dialect.blank_build_arguments else ()
        return tuple(name for name in added if name not in given)

    def remove(self, image: str) -> bool:
        done = self._client.call("image", "rm", image, timeout=REMOVE_TIMEOUT)
        if done.returncode and self._dialect.image_used.search(done.stderr):
            return False
        if done.returncode and not self._dialect.image_missing.search(done.stderr):
            raise self._client.failure(done)
        return True

    def save(self, ref: str, target: Path) -> None:
        self._client.checked("save", f"--output={target}", ref, timeout=TRANSFER_TIMEOUT)

    def load(self, source: Path) -> None:
        self._client.checked("load", f"--input={source}", timeout=TRANSFER_TIMEOUT)

    def builds_with_secrets(self) -> bool:
        words = self._dialect.builds_with_secrets
        return words is not None and (not words or self._client.call(*words).returncode == 0)

    def _require(self, ref: str) -> Image:
        image = self.find(ref)
        if image is None:
            raise ImageUnavailable(f"{self.engine} reported success, and has no image {ref}", hint="deployer doctor")
        return image
