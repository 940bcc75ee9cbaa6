"""Docker through its socket and the ``docker`` package, for hosts without its command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from deployer.engines.answers import container_from
from deployer.engines.dialects import DOCKER
from deployer.engines.sdk_client import Sdk
from deployer.engines.sdk_exec import execute
from deployer.engines.sdk_images import SdkImages
from deployer.engines.sdk_options import host_options
from deployer.engines.shapes import shaped, texts
from deployer.engines.timestamps import moment
from deployer.errors import ConflictError, EngineError
from deployer.host.interrupts import shielded
from deployer.spec import (
    LABEL_NAME,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    State,
    Volume,
)

TIMEOUT = 60
"""Timeout of one call to the engine, in seconds."""


class SdkEngine:
    """Implements :class:`deployer.engines.base.Engine` over Docker's API."""

    def __init__(self, *, socket: str = "", timeout: int = TIMEOUT) -> None:
        """``socket``: overrides DOCKER_HOST; podman answers Docker's API, too. ``timeout`` in seconds."""
        self._sdk = Sdk(socket=socket, timeout=timeout)
        self.images = SdkImages(self._sdk)

    @property
    def name(self) -> EngineName:
        return EngineName.DOCKER

    def probe(self) -> EngineInfo:
        with self._sdk.errors("version"):
            version = self._sdk.client.version()
            nature = DOCKER.nature(self._sdk.client.info())
        return EngineInfo(
            name=self.name,
            version=str(version["Version"]),
            rootless=nature.rootless,
            how=str(self._sdk.client.api.base_url),
            unheld=nature.unheld,
            remote=self._sdk.remote,
        )

    def _get(self, name: str) -> Any:
        """The package's container object with exactly this name, or ``None``."""
        from docker.errors import NotFound

        with self._sdk.errors("inspect"):
            try:
                found = self._sdk.client.containers.get(name)
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
        return container_from(found.attrs, DOCKER) if found is not None else None

    def containers(self) -> tuple[Container, ...]:
        with self._sdk.errors("ps"):
            found = self._sdk.client.containers.list(all=True, filters={"label": LABEL_NAME}, ignore_removed=True)
        return tuple(container_from(one.attrs, DOCKER) for one in found)

    def run(self, spec: ContainerSpec) -> str:
        with self._sdk.errors("run"), shielded():
            api = self._sdk.client.api
            created = api.create_container(
                image=spec.image,
                command=list(spec.command) or None,
                name=spec.name,
                labels=dict(spec.all_labels()),
                environment=dict(spec.all_env()),
                user=spec.user or None,
                ports=[port.container_port for port in spec.ports],
                host_config=api.create_host_config(**host_options(spec)),
                stop_signal=spec.stop_signal,
                stop_timeout=round(spec.stop_timeout.total_seconds()),
                detach=True,
                use_config_proxy=False,
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
            with self._sdk.errors("wait"):
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
        with self._sdk.errors("start"):
            state = DOCKER.states.get(container.status, State.STOPPED)
            if state is State.PAUSED:
                container.unpause()
            elif state is not State.RUNNING:
                container.start()

    def stop(self, name: str, *, timeout: timedelta) -> None:
        container = self._require(name)
        with self._sdk.errors("stop"):
            container.stop(timeout=round(timeout.total_seconds()))

    def hold(self, name: str) -> None:
        """Does nothing: a published port belongs to one container."""

    def remove(self, name: str) -> None:
        container = self._get(name)
        if container is not None:
            with self._sdk.errors("rm"):
                container.remove(force=True)

    def rename(self, name: str, new: str) -> None:
        container = self._require(name)
        with self._sdk.errors("rename"):
            container.rename(new)

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        container = self._require(name)
        with self._sdk.errors("logs"):
            options: dict[str, Any] = {"stream": True, "follow": follow, "tail": "all" if tail is None else tail}
            if since:
                # The package expects a naive time in UTC.
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
        with self._sdk.errors("exec"):
            return execute(self._sdk.client.api, container.id, argv, stdin=stdin)

    def volume(self, name: str) -> Volume | None:
        from docker.errors import NotFound

        with self._sdk.errors("volume inspect"):
            try:
                found = self._sdk.client.volumes.get(name)
            except NotFound:
                return None
        return Volume(name=name, labels=shaped(texts)(found.attrs.get("Labels")))

    def volume_create(self, name: str, labels: Mapping[str, str]) -> None:
        if self.volume(name) is not None:  # docker takes the one that is there
            raise ConflictError(f"the volume {name} exists", hint="choose another name")
        with self._sdk.errors("volume create"):
            self._sdk.client.volumes.create(name, labels=dict(labels))

    def volume_remove(self, name: str) -> None:
        from docker.errors import NotFound

        with self._sdk.errors("volume rm"):
            try:
                self._sdk.client.volumes.get(name).remove()
            except NotFound:
                return
