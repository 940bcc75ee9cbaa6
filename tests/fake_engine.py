"""An engine in memory, for what needs an engine and not its work. It passes the contract tests of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from deployer.errors import ConflictError, EngineError, ImageUnavailable
from deployer.protocol import parse_size
from deployer.spec import (
    BuildRequest,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    Image,
    Settings,
    State,
    Volume,
    features,
)


def _settings(spec: ContainerSpec) -> Settings:
    limits = spec.limits
    return Settings(
        restart=spec.restart,
        memory=parse_size(limits.memory) if limits.memory else 0,
        pids=limits.pids,
        cpus=limits.cpus,
        user=spec.user,
        read_only=spec.read_only,
        confined=True,
        env=dict(spec.env),
    )


@dataclass
class FakeImages:
    """The images of ``fake``."""

    fake: FakeEngine

    @property
    def engine(self) -> EngineName:
        return self.fake.name

    def save(self, ref: str, target: Path) -> None:
        if ref not in self.fake.stock:
            raise EngineError(f"no image {ref}", hint="deployer image build")
        image = self.fake.stock[ref]
        target.write_text(json.dumps([ref, image.id, dict(image.labels)]))

    def load(self, source: Path) -> None:
        try:
            ref, id_, labels = json.loads(source.read_text())
        except ValueError:
            raise EngineError("not an image", hint="save one") from None
        self.fake.stock[ref] = Image(id=id_, ref=ref, names=(ref,), labels=labels)

    def builds_with_secrets(self) -> bool:
        return False

    def find(self, ref: str) -> Image | None:
        return self.fake.stock.get(ref)

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        raise ImageUnavailable(f"no registry has {ref}", hint="load it")

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        if not (request.context / "Dockerfile").read_text().startswith("FROM "):
            raise ImageUnavailable(
                "the image can't be built: no FROM", hint="mend the build file", details=("no FROM",)
            )
        on_line("building")
        if former := self.fake.stock.get(request.tag):
            self.fake.stock[former.id] = replace(former, names=())
        made = Image(
            id=f"sha256:{len(self.fake.stock):064}",
            ref=request.tag,
            names=(request.tag,),
            labels=dict(request.labels),
        )
        self.fake.stock[request.tag] = made
        return made

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(sorted(ref for ref in self.fake.stock if ref.startswith(f"{repository}:")))

    def remove(self, image: str) -> bool:
        found = self.fake.stock.get(image)
        if found and any(container.image_id == found.id for container in self.fake.held.values()):
            return False
        self.fake.stock.pop(image, None)
        return True


@dataclass
class FakeEngine:
    """Containers that do nothing; ``stock`` holds the references that there are."""

    name: EngineName = EngineName.DOCKER
    stock: dict[str, Image] = field(default_factory=dict)
    held: dict[str, Container] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    started: int = 0

    @property
    def images(self) -> FakeImages | None:
        return FakeImages(self) if features(self.name).images else None

    def probe(self) -> EngineInfo:
        return EngineInfo(name=self.name, version="1.0", how="memory")

    def inspect(self, name: str) -> Container | None:
        return self.held.get(name)

    def containers(self) -> tuple[Container, ...]:
        return tuple(container for container in self.held.values() if container.ours)

    def _require(self, name: str) -> Container:
        if name not in self.held:
            raise EngineError(f"there is no container named {name!r}", hint="deployer up")
        return self.held[name]

    def run(self, spec: ContainerSpec) -> str:
        if spec.name in self.held:
            raise ConflictError(f"the name {spec.name} is taken", hint="--name")
        if spec.image not in self.stock:
            raise ImageUnavailable(f"no image {spec.image}", hint="deployer image build")
        taken = {port.host_port for other in self.held.values() if other.state is State.RUNNING for port in other.ports}
        if taken & {port.host_port for port in spec.ports}:
            raise ConflictError("the port is taken", hint="--port")
        self.started += 1
        self.held[spec.name] = Container(
            id=f"id{self.started}",
            name=spec.name,
            state=State.RUNNING,
            image=spec.image,
            image_id=self.stock[spec.image].id,
            labels=dict(spec.all_labels()),
            started_at=f"2030-01-01T00:00:{self.started:02}Z",
            ports=spec.ports,
            mounts=spec.mounts,
            network=spec.network,
            command=spec.command,
            settings=_settings(spec),
        )
        for mount in spec.mounts:
            if mount.kind == "volume":
                self.volumes.setdefault(mount.source, Volume(name=mount.source))
        self.said[spec.name] = ["started", *(f"word {word}" for word in spec.command)]
        return f"id{self.started}"

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        self.held.pop(spec.name, None)
        self.run(spec)
        self.remove(spec.name)
        said = "".join(f"{line}\n" for line in self.said[spec.name])
        return ExecResult(returncode=4 if spec.command[-1:] == ("end",) else 0, stdout=said, stderr="")

    def start(self, name: str) -> None:
        self.held[name] = replace(self._require(name), state=State.RUNNING, exit_code=None)

    def stop(self, name: str, *, timeout: timedelta) -> None:
        self.held[name] = replace(self._require(name), state=State.STOPPED, exit_code=0)

    def hold(self, name: str) -> None:
        """Does nothing: a published port belongs to one container."""

    def remove(self, name: str) -> None:
        self.held.pop(name, None)

    def rename(self, name: str, new: str) -> None:
        if new in self.held:
            raise ConflictError(f"the name {new} is taken", hint="--name")
        self.held[new] = replace(self._require(name), name=new)
        self.said[new] = self.said.pop(name, [])
        del self.held[name]

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        self._require(name)
        lines = self.said.get(name, [])
        yield from lines[max(0, len(lines) - tail) :] if tail is not None else lines

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        if self._require(name).state is not State.RUNNING:
            raise EngineError("it does not run", hint="deployer up")
        if argv[0] == "echo":
            return ExecResult(returncode=0, stdout=" ".join(argv[1:]) + "\n", stderr="")
        if argv[0] == "cat":
            return ExecResult(returncode=0, stdout=stdin.decode(), stderr="")
        return ExecResult(returncode=127, stdout="", stderr="not found")

    def volume(self, name: str) -> Volume | None:
        return self.volumes.get(name)

    def volume_create(self, name: str, labels: Mapping[str, str]) -> None:
        if name in self.volumes:
            raise ConflictError(f"the volume {name} exists", hint="choose another name")
        self.volumes[name] = Volume(name=name, labels=dict(labels))

    def volume_remove(self, name: str) -> None:
        if any(mount.source == name for container in self.held.values() for mount in container.mounts):
            raise EngineError(f"the volume {name} is in use", hint="remove the container first")
        self.volumes.pop(name, None)
