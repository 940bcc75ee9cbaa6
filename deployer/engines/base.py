"""What an engine must be able to do. One contract test class runs on every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from deployer.spec import BuildRequest, Container, ContainerSpec, EngineInfo, EngineName, ExecResult, Image


class Engine(Protocol):
    """Runs containers. Every method raises :class:`deployer.errors.EngineError` (or a subclass) when the
    engine fails, never the exception of a library; each call has a time limit of its own."""

    @property
    def name(self) -> EngineName: ...

    def probe(self) -> EngineInfo:
        """Ask whether the engine really answers. Raises EngineUnreachable with the reason and the cure."""

    def inspect(self, name: str) -> Container | None:
        """The container of exactly this name, ours or not, in whatever state; ``None`` when there is none."""

    def run(self, spec: ContainerSpec) -> str:
        """Create and start, detached; the id. When the start fails nothing of this call is left behind.
        Raises ConflictError when the name or a port is taken, ImageUnavailable when the image is absent
        (images are never pulled here)."""

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        """Run ``spec`` to its end, for at most ``timeout``; what it said. No container is left behind, also of an
        earlier call that was killed. Raises as :meth:`run`; EngineUnreachable after ``timeout``."""

    def start(self, name: str) -> None:
        """Bring a stopped, created or paused container to running; nothing when it runs already."""

    def stop(self, name: str, *, timeout: timedelta) -> None:
        """Stop with the container's own stop signal, kill after ``timeout``; nothing when it is stopped."""

    def remove(self, name: str) -> None:
        """Remove a container, killing it if it runs; nothing when there is none. Data is never touched."""

    def rename(self, name: str, new: str) -> None: ...

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        """Log lines, stdout and stderr together, without line ends. ``since``: an RFC 3339 time or a
        duration such as ``10m``. With ``follow`` the iterator ends when the container stops."""

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        """Run ``argv`` inside a running container, as its user."""

    def image(self, ref: str) -> Image | None:
        """The local image of this reference; ``None`` when it is absent. Never asks a registry."""

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        """Fetch an image from its registry. Raises ImageUnavailable."""

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        """Build and tag; output lines go to ``on_line`` as they come. An older image of that tag stays when
        the build fails. Raises ImageUnavailable with the last lines."""

    def images(self, repository: str) -> tuple[str, ...]:
        """The local references NAME:TAG of which NAME is ``repository``."""

    def image_remove(self, image: str) -> bool:
        """Remove an image by its reference or its id; whether it is gone. One that a container was made from stays."""

    def can_build_with_secrets(self) -> bool:
        """Whether a build step can be given a file that ends up in no layer."""

    def volume_remove(self, name: str) -> None:
        """Remove a named volume; nothing when there is none."""
