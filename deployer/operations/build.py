"""Container builds that install from the index."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from deployer.addresses import is_loopback
from deployer.builds import arguments
from deployer.builds.arguments import Arguments
from deployer.builds.builders import Builder, builder
from deployer.builds.given import passed
from deployer.clients.client import ClientSettings
from deployer.clients.variables import variables
from deployer.deployment.record import read_applied
from deployer.engines import detect, open_engine
from deployer.engines.base import Engine
from deployer.errors import EngineUnreachable, Refused, UsageError
from deployer.host.runner import Runner
from deployer.operations.build_given import ByAddress, ByTunnel, Source
from deployer.operations.build_network import SHARED, Chosen, host_options
from deployer.operations.environment import is_transparent
from deployer.operations.logins import of_build
from deployer.spec import EngineInfo, EngineName
from deployer.ui.output import UI


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


def source(settings: ClientSettings, chosen: Chosen, *, name: str, index: str, transparent: bool | None) -> Source:
    """The way to an index of the deployment ``name``. ``transparent``: None for what its profile says."""
    if is_transparent(name) if transparent is None else transparent:
        return ByTunnel(name=name, index=index, chosen=chosen)
    return ByAddress(settings=settings, chosen=chosen, login=of_build(name, settings.index_url))


def run(words: Sequence[str], source: Source, chosen: Chosen, ui: UI) -> int:
    """Build, and return the builder's exit code. Nothing of the index is left in the image, where the builder can.

    Raises UsageError, Refused, ConflictError, EngineUnreachable.
    """
    typed = arguments.read(words)
    path = _file(typed, chosen.builder)
    text = text_of(path)
    with source.step([text], typed, ui) as step, TemporaryDirectory(prefix="deployer-build-") as name:
        directory = Path(name)
        changed = passed(step.given, text, step.builder)
        for secret, content in changed.secrets.items():
            (directory / secret).write_bytes(content)
        file = written(path, changed.text, directory)
        options = changed.options(directory, inherits=step.builder.inherits)
        argv = (*step.builder.argv, *step.options, f"--file={file}", *options, *typed.words)
        return Runner(env={**step.builder.env, **changed.proxies}).attached(argv)


def flags(settings: ClientSettings, typed: Sequence[str], chosen: Chosen, *, name: str) -> tuple[str, ...]:
    """The options for a build file that declares the variables of clients with ``ARG``. Raises Refused, UsageError."""
    if of_build(name, settings.index_url) is not None:
        raise Refused(
            f"{settings.index_url} can be read with a login only, which build arguments would show",
            hint="deployer build -t NAME .",
        )
    words = tuple(f"--build-arg={key}={value}" for key, value in variables(settings).items())
    if not is_loopback(settings.index_url):
        return words
    network = arguments.read(typed).network
    if network and network not in SHARED:
        raise UsageError(
            f"an index on loopback is not reached in the network {network!r}",
            hint="build with deployer build, which relays it, or in the network host",
        )
    return (*host_options(chosen), *words)


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
    return Path(typed.file) if typed.file else default_file(context, chosen)


def default_file(context: Path, chosen: Builder) -> Path:
    """The build file that a builder takes from a context."""
    found = [context / name for name in chosen.files if (context / name).is_file()]
    return found[0] if found else context / chosen.files[0]


def text_of(path: Path) -> str:
    """The text of a build file. Raises UsageError."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the build file {path} can't be read: {why}", hint="name one with -f") from None


def written(path: Path, text: str, directory: Path) -> Path:
    """Write the changed build file, beside the list of what it ignores, which is found by its name."""
    changed = directory / path.name
    changed.write_text(text, encoding="utf-8", newline="")
    ignored = path.with_name(f"{path.name}.dockerignore")
    if ignored.is_file():
        shutil.copy(ignored, directory / ignored.name)
    return changed
