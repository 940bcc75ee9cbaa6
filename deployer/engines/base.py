"""What an engine does, in two Protocols: containers, and images. One contract test runs on every implementation.

Every method raises :class:`deployer.errors.EngineError` or a subclass when the engine fails, never an exception of a
library. Every call has a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from deployer.spec import BuildRequest, Container, ContainerSpec, EngineInfo, EngineName, ExecResult, Image, Volume


class Images(Protocol):
    """The images of an engine."""

    @property
    def engine(self) -> EngineName: ...

    def find(self, ref: str) -> Image | None:
        """Return the local image with this reference or id; ``None`` when absent. Never asks a registry."""

    def tags(self, repository: str) -> tuple[str, ...]:
        """List the local references NAME:TAG with the name ``repository``."""

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        """Pull an image from its registry. Raises ImageUnavailable."""

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        """Build and tag an image; ``on_line`` gets the output line by line.

        A failed build keeps the previous image of that tag. Raises ImageUnavailable with the last lines.
        """

    def remove(self, image: str) -> bool:
        """Remove an image by its reference or id. Returns whether it is gone: one that a container uses stays."""

    def save(self, ref: str, target: Path) -> None:
        """Write a local image with its reference to the file ``target``, as a tar that every engine loads."""

    def load(self, source: Path) -> None:
        """Load the images of a file that an engine saved, under the references in it."""

    def builds_with_secrets(self) -> bool:
        """Whether a build step can read a secret file that ends up in no layer. Asks the engine."""


class Engine(Protocol):
    """Runs containers."""

    @property
    def name(self) -> EngineName: ...

    @property
    def images(self) -> Images | None:
        """Its images; ``None`` for an engine without images (:attr:`deployer.spec.Features.images`)."""

    def probe(self) -> EngineInfo:
        """Check that the engine answers. Raises EngineUnreachable."""

    def inspect(self, name: str) -> Container | None:
        """Return the container with exactly this name, ours or not, in any state; ``None`` when absent."""

    def containers(self) -> tuple[Container, ...]:
        """Return all containers that carry our label, of every deployment and user of the engine, in any state."""

    def run(self, spec: ContainerSpec) -> str:
        """Create and start a container, detached; return its id. A failed start leaves nothing behind.

        Raises ConflictError when the name or a port is taken, ImageUnavailable when the image is absent: it is never
        pulled here.
        """

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        """Run ``spec`` to its end and return its output. Leaves no container behind.

        A container of ours with that name, left by a killed call, is removed first. Raises as :meth:`run`, and
        EngineUnreachable after ``timeout``.
        """

    def start(self, name: str) -> None:
        """Start a stopped, created or paused container. Does nothing when it runs."""

    def stop(self, name: str, *, timeout: timedelta) -> None:
        """Stop a container with its stop signal, and kill it after ``timeout``. Does nothing when it is stopped."""

    def hold(self, name: str) -> None:
        """Keep the port of a running container that is about to be replaced, where this is possible: who connects waits
        for the next one."""

    def remove(self, name: str) -> None:
        """Remove a container, and kill it if it runs. Does nothing when absent. Keeps the data."""

    def rename(self, name: str, new: str) -> None: ...

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        """Yield the log lines of stdout and stderr, without line ends.

        ``since``: an RFC 3339 time or a duration such as ``10m``. ``tail``: only the last lines, so many. With
        ``follow``, the iterator ends when the container stops.
        """

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        """Run ``argv`` in a running container, as its user, with ``stdin`` as standard input.

        The command has to read all of ``stdin``: where it ends before, podman may lose what it wrote.
        """

    def volume(self, name: str) -> Volume | None:
        """Return the volume with exactly this name; ``None`` when absent."""

    def volume_create(self, name: str, labels: Mapping[str, str]) -> None:
        """Create an empty volume. Raises ConflictError when there is one of that name."""

    def volume_remove(self, name: str) -> None:
        """Remove a named volume. Does nothing when absent."""
