"""Docker through its socket and the ``docker`` package, where there is no command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deployer.engines.answers import container_from, image_from
from deployer.engines.dialects import DIALECTS
from deployer.engines.failures import meant, unavailable
from deployer.engines.sdk_exec import execute
from deployer.engines.sdk_options import host_options
from deployer.engines.timestamps import moment
from deployer.errors import DeployerError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.host.interrupts import shielded
from deployer.spec import (
    BuildRequest,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    Image,
    State,
)

if TYPE_CHECKING:
    from docker import DockerClient

TIMEOUT = 60
"""Seconds for one answer of the engine."""
_DIALECT = DIALECTS[EngineName.DOCKER]


class SdkEngine:
    """Implements :class:`deployer.engines.base.Engine` over Docker's API."""

    def __init__(self, *, socket: str = "", timeout: int = TIMEOUT) -> None:
        """``socket``: another address than DOCKER_HOST's or Docker's own; podman answers Docker's API, too."""
        self._socket = socket
        self._timeout = timeout
        self._opened: DockerClient | None = None

    @property
    def name(self) -> EngineName:
        return EngineName.DOCKER

    @property
    def _client(self) -> DockerClient:
        if self._opened is None:
            import docker

            self._opened = (
                docker.DockerClient(base_url=self._socket, timeout=self._timeout)
                if self._socket
                else docker.from_env(timeout=self._timeout)
            )
        return self._opened

    @contextmanager
    def _told(self, doing: str, *, else_raise: Callable[[str], DeployerError] | None = None) -> Iterator[None]:
        """Turn what the package raises into what the contract promises; ``else_raise`` makes the error of a failure
        that has no name of its own."""
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
        if known := meant(text, cause, dialect=_DIALECT):
            return known
        if getattr(error, "response", None) is None:
            return EngineUnreachable(
                f"docker does not answer at its socket: {cause}", hint=f"{_DIALECT.start}, or --engine process"
            )
        if else_raise is not None:
            return else_raise(cause)
        return EngineError(f"docker {doing}: {cause}", hint="deployer doctor")

    def probe(self) -> EngineInfo:
        with self._told("version"):
            version = self._client.version()
            nature = _DIALECT.nature(self._client.info())
        return EngineInfo(
            name=self.name,
            version=str(version["Version"]),
            rootless=nature.rootless,
            how=str(self._client.api.base_url),
            unheld=nature.unheld,
        )

    def can_build_with_secrets(self) -> bool:
        return False  # the package speaks to the classic builder only

    def _get(self, name: str) -> Any:
        """The package's own container object of exactly this name, or None."""
        from docker.errors import NotFound

        with self._told("inspect"):
            try:
                found = self._client.containers.get(name)
            except NotFound:
                return None
        return found if found.name == name else None

    def _require(self, name: str) -> Any:
        found = self._get(name)
        if found is None:
            raise EngineError(f"there is no container named {name!r}", hint="deployer up")
        return found

    def inspect(self, name: str) -> Container | None:
        found = self._get(name)
        return container_from(found.attrs, _DIALECT) if found is not None else None

    def run(self, spec: ContainerSpec) -> str:
        with self._told("run"), shielded():
            api = self._client.api
            created = api.create_container(
                image=spec.image,
                command=list(spec.command) or None,
                name=spec.name,
                labels=dict(spec.all_labels()),
                environment=dict(spec.env),
                user=spec.user or None,
                ports=[port.container_port for port in spec.ports],
                host_config=api.create_host_config(**host_options(spec)),
                stop_signal=spec.stop_signal,
                stop_timeout=round(spec.stop_timeout.total_seconds()),
                detach=True,
            )
            try:
                api.start(created["Id"])
            except BaseException:
                api.remove_container(created["Id"], force=True)
                raise
            return str(created["Id"])

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        left = self.inspect(spec.name)
        if left is not None and left.ours:
            self.remove(spec.name)
        try:
            self.run(spec)
            container = self._require(spec.name)
            with self._told("wait"):
                code = int(container.wait(timeout=timeout.total_seconds())["StatusCode"])
                out, err = (
                    container.logs(stdout=stream == "out", stderr=stream == "err").decode("utf-8", "replace")
                    for stream in ("out", "err")
                )
        finally:
            self.remove(spec.name)
        return ExecResult(returncode=code, stdout=out, stderr=err)

    def start(self, name: str) -> None:
        container = self._require(name)
        with self._told("start"):
            state = _DIALECT.states.get(container.status, State.STOPPED)
            if state is State.PAUSED:
                container.unpause()
            elif state is not State.RUNNING:
                container.start()

    def stop(self, name: str, *, timeout: timedelta) -> None:
        container = self._require(name)
        with self._told("stop"):
            container.stop(timeout=round(timeout.total_seconds()))

    def remove(self, name: str) -> None:
        container = self._get(name)
        if container is not None:
            with self._told("rm"):
                container.remove(force=True)

    def rename(self, name: str, new: str) -> None:
        container = self._require(name)
        with self._told("rename"):
            container.rename(new)

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        container = self._require(name)
        with self._told("logs"):
            options: dict[str, Any] = {"stream": True, "follow": follow, "tail": "all" if tail is None else tail}
            if since:
                # The package wants a naive time in UTC.
                options["since"] = moment(since).replace(tzinfo=None)
            rest = b""
            for chunk in container.logs(**options):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r")
            if rest:
                yield rest.decode("utf-8", "replace")

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        container = self._require(name)
        with self._told("exec"):
            return execute(self._client.api, container.id, argv, stdin=stdin)

    def image(self, ref: str) -> Image | None:
        from docker.errors import ImageNotFound

        with self._told("image inspect"):
            try:
                return image_from(self._client.images.get(ref).attrs, ref)
            except ImageNotFound:
                return None

    def _made(self, ref: str) -> Image:
        image = self.image(ref)
        if image is None:
            raise ImageUnavailable(f"docker made no image {ref}", hint="deployer doctor")
        return image

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        def unpulled(cause: str) -> DeployerError:
            return ImageUnavailable(f"the image {ref} can't be pulled: {cause}", hint="name a local image")

        with self._told("pull", else_raise=unpulled):
            for event in self._client.api.pull(ref, stream=True, decode=True):
                on_line(str(event.get("status", "")))
        return self._made(ref)

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        last: list[str] = []

        def unbuilt(cause: str) -> DeployerError:
            failed = f"the image {request.tag} can't be built"
            return unavailable(failed, cause, dialect=_DIALECT, lines=tuple(last) or (cause,))

        with self._told("build", else_raise=unbuilt):
            for event in self._client.api.build(
                path=str(request.context),
                tag=request.tag,
                buildargs=dict(request.build_args),
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
        return self._made(request.tag)

    def images(self, repository: str) -> tuple[str, ...]:
        with self._told("images"):
            found = self._client.images.list(filters={"reference": f"{repository}:*"})
        return tuple(sorted({tag for image in found for tag in image.tags if tag.startswith(f"{repository}:")}))

    def image_remove(self, image: str) -> bool:
        from docker.errors import APIError, NotFound

        with self._told("image rm"):
            try:
                self._client.images.remove(image)
            except NotFound:
                return True
            except APIError as error:
                if _DIALECT.image_used.search(str(error.explanation)):
                    return False
                raise
        return True

    def volume_remove(self, name: str) -> None:
        from docker.errors import NotFound

        with self._told("volume rm"):
            try:
                self._client.volumes.get(name).remove()
            except NotFound:
                return
