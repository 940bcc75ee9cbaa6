"""Docker's API through the ``docker`` package, with our errors instead of those of the package."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployer.engines.dialects import DOCKER
from deployer.engines.failures import meant, silent
from deployer.engines.remote import far
from deployer.errors import DeployerError, EngineError, EngineUnreachable

if TYPE_CHECKING:
    from docker import DockerClient


class Sdk:
    """One client of the ``docker`` package, opened at the first use.

    ``socket``: overrides DOCKER_HOST. ``timeout``: seconds for one answer.
    """

    def __init__(self, *, socket: str, timeout: int) -> None:
        self._socket = socket
        self._timeout = timeout
        self._opened: DockerClient | None = None

    @property
    def remote(self) -> str:
        """The address of an engine on another host; empty for one of this host."""
        return far(self._socket or os.environ.get(DOCKER.address, ""))

    @property
    def client(self) -> DockerClient:
        if self._opened is None:
            import docker

            self._opened = (
                docker.DockerClient(base_url=self._socket, timeout=self._timeout)
                if self._socket
                else docker.from_env(timeout=self._timeout)
            )
        return self._opened

    @contextmanager
    def errors(self, doing: str, *, else_raise: Callable[[str], DeployerError] | None = None) -> Iterator[None]:
        """Translate exceptions of the package. ``doing``: the operation, for the message.

        ``else_raise`` makes the error for a cause that the dialect does not recognise.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            yield
        except DeployerError:
            raise
        except (DockerException, RequestException, OSError) as error:
            raise self._error(doing, error, else_raise) from None

    def _error(self, doing: str, error: Exception, else_raise: Callable[[str], DeployerError] | None) -> DeployerError:
        text = str(getattr(error, "explanation", None) or error)
        cause = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        if known := meant(text, cause, dialect=DOCKER):
            return known
        if getattr(error, "response", None) is None:
            if self.remote:
                return silent(cause, dialect=DOCKER, address=self.remote)
            return EngineUnreachable(
                f"docker does not answer at its socket: {cause}", hint=f"{DOCKER.start}, or --engine process"
            )
        if else_raise is not None:
            return else_raise(cause)
        return EngineError(f"docker {doing}: {cause}", hint="deployer doctor")
