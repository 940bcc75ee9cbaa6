"""Container builds that install from the index."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from deployer.addresses import is_loopback
from deployer.builds import arguments, dockerfile
from deployer.builds.arguments import Arguments
from deployer.builds.builders import Builder, builder
from deployer.builds.dockerfile import Secret
from deployer.clients.client import ClientSettings
from deployer.clients.registry import CLIENT_FILES
from deployer.clients.variables import variables
from deployer.deployment.record import read_applied
from deployer.engines import detect, open_engine
from deployer.engines.base import Engine
from deployer.errors import EngineError, EngineUnreachable, Refused, UsageError
from deployer.host.relay import device_of, relaying
from deployer.host.runner import Runner
from deployer.profile.types import ClientName
from deployer.protocol import parsed
from deployer.spec import EngineInfo, EngineName
from deployer.ui.output import UI

_SHARED = ("host",)
_OWN_INDEX = re.compile(r"\b(PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|UV_DEFAULT_INDEX|UV_INDEX_URL|--(?:extra-)?index-url)\b")
_USES_UV = re.compile(r"\buvx?\b")
PIP = Secret(id="deployer-pip", target="/etc/pip.conf")
UV = Secret(id="deployer-uv", target="/etc/uv/uv.toml")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The builder, and the engine behind it."""

    builder: Builder
    engine: Engine
    info: EngineInfo


def choose(wanted: str, *, name: str) -> Chosen:
    """The builder ``wanted``; for ``auto`` that of the deployment's engine, else of the first engine that answers.

    Raises EngineUnreachable, UsageError.
    """
    applied = read_applied(name)
    recorded = applied.engine if applied is not None else ""
    if wanted == "auto" and recorded in (EngineName.DOCKER, EngineName.PODMAN, EngineName.NERDCTL):
        wanted = recorded
    if wanted == "auto":
        engine = _first()
        info = engine.probe()
        wanted = str(engine.name)
    else:
        named = builder(wanted, buildkit=False)
        engine = open_engine(named.engine)
        # buildah works without podman, on the same storage.
        info = engine.probe() if shutil.which(named.engine) else EngineInfo(name=named.engine, version="")
    images = engine.images
    buildkit = wanted == "docker" and images is not None and images.builds_with_secrets()
    return Chosen(builder=builder(wanted, buildkit=buildkit), engine=engine, info=info)


def _first() -> Engine:
    for name in (EngineName.NERDCTL, EngineName.DOCKER, EngineName.PODMAN):
        with contextlib.suppress(EngineUnreachable):
            return detect(name).engine
    raise EngineUnreachable("no container engine answers", hint="start docker, podman or nerdctl")


def run(words: Sequence[str], settings: ClientSettings, chosen: Chosen, ui: UI) -> int:
    """Build, and return the builder's exit code. Nothing of the index is left in the image, where the builder can.

    Raises UsageError, Refused, ConflictError, EngineUnreachable.
    """
    typed = arguments.read(words)
    path = _file(typed, chosen.builder)
    text = _text(path)
    if _OWN_INDEX.search(text):
        ui.warn(f"{path} names an index of its own, which wins over this one")
    with contextlib.ExitStack() as stack:
        own, added = stack.enter_context(_reached(settings, typed, chosen))
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="deployer-build-")))
        if chosen.builder.secrets:
            words = _with_secrets(path, text, own, directory)
        else:
            ui.warn(
                "docker's classic builder keeps the index address in the image's history; install buildx to leave none"
            )
            words = _with_arguments(path, text, own, directory)
        argv = (*chosen.builder.argv, *added, *words, *typed.words)
        return Runner(env=chosen.builder.env).attached(argv)


def flags(settings: ClientSettings, typed: Sequence[str], chosen: Chosen) -> tuple[str, ...]:
    """The options for a build file that declares the variables of clients with ``ARG``."""
    if not is_loopback(settings.index_url):
        return _build_args(settings)
    network = arguments.read(typed).network
    if network and network not in _SHARED:
        raise UsageError(
            f"an index on loopback is not reached in the network {network!r}",
            hint="build with deployer build, which relays it, or in the network host",
        )
    return (*_host(chosen), *_build_args(settings))


# The build file


def _file(typed: Arguments, chosen: Builder) -> Path:
    """The build file. Raises UsageError for one that is not a file here."""
    if typed.file == "-" or typed.context == "-":
        raise UsageError(
            "a build file or context of the standard input can't be changed", hint="deployer build --flags"
        )
    if not typed.context:
        raise UsageError("there is no build context", hint="deployer build .")
    context = Path(typed.context)
    if not context.is_dir():
        raise UsageError(f"the build context {typed.context} is no directory here", hint="deployer build --flags")
    if typed.file:
        return Path(typed.file)
    found = [context / name for name in chosen.files if (context / name).is_file()]
    return found[0] if found else context / chosen.files[0]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the build file {path} can't be read: {why}", hint="name one with -f") from None


def _written(path: Path, text: str, directory: Path) -> str:
    """Write the changed build file, beside the list of what it ignores, which is found by its name."""
    changed = directory / path.name
    changed.write_text(text, encoding="utf-8", newline="")
    ignored = path.with_name(f"{path.name}.dockerignore")
    if ignored.is_file():
        shutil.copy(ignored, directory / ignored.name)
    return f"--file={changed}"


def _with_secrets(path: Path, text: str, settings: ClientSettings, directory: Path) -> tuple[str, ...]:
    wanted: dict[Secret, ClientName] = {
        PIP: "pip",
        **({UV: "uv"} if _USES_UV.search(text) else {}),
    }  # uv's directory stays in the image, empty
    contents = {}
    for secret, name in wanted.items():
        client = CLIENT_FILES[name]
        contents[secret] = client.merge(b"", client.values(settings, Path(secret.target)))
    words = [_written(path, dockerfile.with_secrets(text, tuple(contents)), directory)]
    for secret, content in contents.items():
        file = directory / secret.id
        file.write_bytes(content)
        words.append(f"--secret=id={secret.id},src={file}")
    return tuple(words)


def _with_arguments(path: Path, text: str, settings: ClientSettings, directory: Path) -> tuple[str, ...]:
    if urlsplit(settings.index_url).username:
        raise Refused(
            "docker's classic builder would keep the index's credentials in the image's history",
            hint="install docker's buildx",
        )
    changed = dockerfile.with_arguments(text, tuple(variables(settings)))
    return (_written(path, changed, directory), *_build_args(settings))


def _build_args(settings: ClientSettings) -> tuple[str, ...]:
    return tuple(f"--build-arg={key}={value}" for key, value in variables(settings).items())


# The way from a step to the index


@contextlib.contextmanager
def _reached(
    settings: ClientSettings, typed: Arguments, chosen: Chosen
) -> Iterator[tuple[ClientSettings, tuple[str, ...]]]:
    """The settings with the address that steps reach, and options of the builder; the relay if one is needed."""
    if not is_loopback(settings.index_url):
        yield settings, ()
        return
    if chosen.info.remote:
        raise Refused(
            f"{chosen.builder.name} builds at {chosen.info.remote}, which does not reach the loopback of this host",
            hint="deployer up --bind ADDRESS --expose",
        )
    network = typed.network or _of_driver(chosen)
    if network in ("", *_SHARED):
        yield settings, () if typed.network else _host(chosen)
        return
    if network == "none":
        yield settings, ()
        return
    parts = urlsplit(settings.index_url)
    gateway, device = _bridge(network, chosen)
    to = (parts.hostname or "", parts.port or 80)
    with relaying(gateway, device, port=to[1], to=to) as port:
        address = urlunsplit(parts._replace(netloc=f"{gateway}:{port}"))
        yield ClientSettings(index_url=address, timeout=settings.timeout), ()


def _host(chosen: Chosen) -> tuple[str, ...]:
    """The options with which a step has this host's loopback. Raises Refused where that is another one."""
    if chosen.info.rootless and chosen.info.name is not EngineName.PODMAN:
        raise Refused(
            f"a build of the rootless {chosen.builder.name} does not reach the loopback of this host",
            hint="deployer up --bind ADDRESS --expose",
        )
    return chosen.builder.host


def _of_driver(chosen: Chosen) -> str:
    """The network of a buildx builder in a container of its own, which is docker's bridge; empty for any other."""
    if chosen.builder.engine is not EngineName.DOCKER or not chosen.builder.secrets:
        return ""
    done = Runner().run(("docker", "buildx", "inspect"))
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    return "bridge" if driver is not None and driver[1] == "docker-container" else ""


def _bridge(network: str, chosen: Chosen) -> tuple[str, str]:
    """The gateway of a network of the engine, and the device on this host that has it. Raises UsageError."""
    client = str(chosen.info.name)
    named = {"default": "podman" if chosen.info.name is EngineName.PODMAN else "bridge"}.get(network, network)
    done = Runner().run((client, "network", "inspect", named))
    if done.returncode:
        raise EngineError(f"{client} network inspect {named}: {done.stderr.strip()}", hint="add --network=host")
    for gateway in _gateways(parsed(done.stdout)):
        if device := device_of(gateway):
            return gateway, device
    raise UsageError(
        f"no interface of this host is the gateway of the network {named!r}", hint="add --network=host to the build"
    )


def _gateways(answer: Any) -> Iterator[str]:
    """Every gateway that an engine's answer about a network names."""
    if isinstance(answer, list):
        for one in answer:
            yield from _gateways(one)
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            if key.lower() == "gateway" and isinstance(value, str):
                yield value
            else:
                yield from _gateways(value)
