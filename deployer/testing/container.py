"""The index as a container, with the interface that users of testcontainers know."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

from deployer.testing.index import RunningIndex, running_index

PORT = 3141
"""Where the server listens inside of the container; other containers of a network reach it there."""


class DevpiContainer:
    """A devpi server of deployer's own image, on Docker. The image is built when it is absent.

    Arguments are those of ``running_index``. The server is published on a free port of loopback only; other containers
    reach it in a network that both are in.
    """

    def __init__(self, **options: Any) -> None:
        self._options = {"engine": "docker", **options}
        self._network: Any = None
        self._aliases: tuple[str, ...] = ()
        self._stack = ExitStack()
        self._running: RunningIndex | None = None

    def with_network(self, network: Any) -> Self:
        """Connect the container to ``network``, which has a method ``connect`` as testcontainers' and Docker's."""
        self._network = network
        return self

    def with_network_aliases(self, *aliases: str) -> Self:
        """Names by which other containers of the network reach it."""
        self._aliases = aliases
        return self

    def start(self) -> Self:
        """Start the server; it answers when this returns. Raises IndexFailed."""
        self._running = self._stack.enter_context(running_index(**self._options))
        if self._network is not None:
            try:
                self._network.connect(self._running.name, list(self._aliases))
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Remove the container and its data."""
        self._running = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def index(self) -> RunningIndex:
        """The running index, for uploads and for the environment of clients. Raises RuntimeError before the start."""
        if self._running is None:
            raise RuntimeError("the container is not running: call start()")
        return self._running

    def get_url(self) -> str:
        """The address of the server for this host."""
        return self.index.url

    def get_index_url(self) -> str:
        """The address that pip and uv of this host are given."""
        return self.index.index_url

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, port: int = PORT) -> int:
        """The port of this host at which the server is published; ``port``: 3141, the only one."""
        if port != PORT:
            raise ValueError(f"port {port} is not published: the server listens at {PORT}")
        return int(self.index.url.rpartition(":")[2])
