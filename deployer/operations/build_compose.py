"""Container builds of a compose file that install from the index."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from deployer.builds import arguments, compose
from deployer.builds.arguments import Arguments
from deployer.builds.compose import COMPOSERS, Build, Change, Composer
from deployer.builds.given import passed
from deployer.errors import EngineError, UsageError
from deployer.host.runner import Runner
from deployer.operations.build import default_file, text_of, written
from deployer.operations.build_given import Source, Step
from deployer.operations.build_network import Chosen
from deployer.ui.output import UI

_HOST = "--network=host"


def run(words: Sequence[str], source: Source, chosen: Chosen, ui: UI) -> int:
    """Build the services of a compose file, and return the exit code of the program for it.

    ``words``: options of ``docker compose``, of its ``build``, and services. Raises UsageError, Refused, ConflictError,
    EngineError, EngineUnreachable.
    """
    composer = COMPOSERS.get(chosen.builder.name)
    if composer is None:
        raise UsageError(f"{chosen.builder.name} builds no compose files", hint="deployer build --builder podman")
    before, after = compose.split(words)
    document = _read(composer, before, chosen)
    found = compose.builds(document)
    if not found:
        raise UsageError("the compose file has no service that is built", hint="name another one with -f")
    typed = arguments.read(after)
    here = [build for build in found if build.is_here]
    texts = {build.service: _text(build, chosen) for build in here}
    for build in found:
        if not build.is_here:
            ui.warn(f"{build.service} is built from {build.context}, and does not install from the index")
    with contextlib.ExitStack() as stack:
        steps = _steps(here, texts, typed, source, stack, ui)
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="deployer-build-")))
        changes = {
            build.service: _change(build, texts[build.service], steps[build.network], directory, composer)
            for build in here
        }
        name = str(document.get("name") or _project(before))
        changed = compose.changed(document, changes)
        file = directory / "compose.yaml"
        file.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        env = dict(chosen.builder.env)
        for step in steps.values():
            env |= step.given.proxies if step.builder.inherits else {}
        network = [composer.network + _HOST] if composer.network and any(map(_in_host, steps.values())) else []
        argv = (*composer.argv, f"--project-name={name}", f"--file={file}", *network, "build", *after)
        return Runner(env=env).attached(argv)


def _read(composer: Composer, before: Sequence[str], chosen: Chosen) -> dict[str, Any]:
    """The compose file, resolved by the program that reads it. Raises EngineError."""
    done = Runner(env=chosen.builder.env).run((*composer.argv, *before, "config"))
    try:
        document = yaml.safe_load(done.stdout)
    except yaml.YAMLError:
        document = None
    if done.returncode or not isinstance(document, Mapping):
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"{' '.join(composer.argv)} config: {why}", hint="name a compose file with -f")
    return dict(compose.plain(document) if composer.escaped else document)


def _project(before: Sequence[str]) -> str:
    """The project's name, where the program does not print it: as podman-compose has it."""
    named = _values(before, "-p", "--project-name")
    if named or os.environ.get("COMPOSE_PROJECT_NAME"):
        return named[-1] if named else os.environ["COMPOSE_PROJECT_NAME"]
    files = _values(before, "-f", "--file")
    directory = Path(files[0]).parent if files else Path()
    return re.sub(r"[^-_a-z0-9]", "", directory.resolve().name.lower())


def _values(words: Sequence[str], *names: str) -> list[str]:
    """The values of an option, as :func:`compose.split` leaves it."""
    pairs = ((word.partition("="), after) for word, after in zip_longest(words, words[1:], fillvalue=""))
    return [value if given else after for (name, given, value), after in pairs if name in names]


def _text(build: Build, chosen: Chosen) -> str:
    return build.inline or text_of(build.path or default_file(Path(build.context), chosen.builder))


def _steps(
    builds: Sequence[Build],
    texts: Mapping[str, str],
    typed: Arguments,
    source: Source,
    stack: contextlib.ExitStack,
    ui: UI,
) -> dict[str, Step]:
    """What the steps of all builds in a network get, by the network."""
    steps = {}
    for network in dict.fromkeys(build.network for build in builds):
        there = [build for build in builds if build.network == network]
        given = typed.given.union(*(build.given for build in there))
        whole = replace(typed, network=network, given=given)
        steps[network] = stack.enter_context(source.step([texts[build.service] for build in there], whole, ui))
    return steps


def _change(build: Build, text: str, step: Step, directory: Path, composer: Composer) -> Change:
    """What the build gets; its files are written to a directory of its own below ``directory``."""
    own = directory / build.service
    own.mkdir()
    change = passed(step.given, text, step.builder)
    for secret, content in change.secrets.items():
        (own / secret).write_bytes(content)
    path = Path("Dockerfile") if build.inline else build.path or default_file(Path(build.context), step.builder)
    return Change(
        passed=change,
        file=str(written(path, change.text, own)),
        secrets={secret: str(own / secret) for secret in change.secrets},
        network="host" if _in_host(step) and not composer.network else "",
        inherits=step.builder.inherits,
    )


def _in_host(step: Step) -> bool:
    return _HOST in step.options
