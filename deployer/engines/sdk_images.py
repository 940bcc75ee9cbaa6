"""The images of docker, through its API."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from deployer.engines.answers import image_from
from deployer.engines.dialects import DOCKER
from deployer.engines.failures import unavailable
from deployer.engines.sdk_client import Sdk
from deployer.errors import DeployerError, ImageUnavailable
from deployer.spec import BuildRequest, EngineName, Image


class SdkImages:
    """Implements :class:`deployer.engines.base.Images` over Docker's API."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk

    @property
    def engine(self) -> EngineName:
        return EngineName.DOCKER

    def find(self, ref: str) -> Image | None:
        from docker.errors import ImageNotFound

        with self._sdk.errors("image inspect"):
            try:
                return image_from(self._sdk.client.images.get(ref).attrs, ref)
            except ImageNotFound:
                return None

    def _require(self, ref: str) -> Image:
        image = self.find(ref)
        if image is None:
            raise ImageUnavailable(f"docker reported success, and has no image {ref}", hint="deployer doctor")
        return image

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        def unpulled(cause: str) -> DeployerError:
            return ImageUnavailable(f"the image {ref} can't be pulled: {cause}", hint="name a local image")

        with self._sdk.errors("pull", else_raise=unpulled):
            for event in self._sdk.client.api.pull(ref, stream=True, decode=True):
                on_line(str(event.get("status", "")))
        return self._require(ref)

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        last: list[str] = []

        def unbuilt(cause: str) -> DeployerError:
            failed = f"the image {request.tag} can't be built"
            return unavailable(failed, cause, dialect=DOCKER, lines=tuple(last) or (cause,))

        with self._sdk.errors("build", else_raise=unbuilt):
            for event in self._sdk.client.api.build(
                path=str(request.context),
                tag=request.tag,
                buildargs=dict(request.build_args) | {name: os.environ[name] for name in request.from_environment},
                use_config_proxy=False,
                labels=dict(request.labels),
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
            ):
                for line in str(event.get("stream") or event.get("error") or "").splitlines():
                    last = [*last[-11:], line]
                    on_line(line)
                if "error" in event:
                    raise unbuilt(last[-1] if last else "no reason given")
        return self._require(request.tag)

    def tags(self, repository: str) -> tuple[str, ...]:
        with self._sdk.errors("images"):
            found = self._sdk.client.images.list(filters={"reference": f"{repository}:*"})
        return tuple(sorted({tag for image in found for tag in image.tags if tag.startswith(f"{repository}:")}))

    def remove(self, image: str) -> bool:
        from docker.errors import APIError, NotFound

        with self._sdk.errors("image rm"):
            try:
                self._sdk.client.images.remove(image)
            except NotFound:
                return True
            except APIError as error:
                if DOCKER.image_used.search(str(error.explanation)):
                    return False
                raise
        return True

    def save(self, ref: str, target: Path) -> None:
        with self._sdk.errors("save"), target.open("wb") as stream:
            for piece in self._sdk.client.api.get_image(ref):
                stream.write(piece)

    def load(self, source: Path) -> None:
        with self._sdk.errors("load"), source.open("rb") as stream:
            self._sdk.client.images.load(stream)

    def builds_with_secrets(self) -> bool:
        return False  # the package uses only the classic builder
