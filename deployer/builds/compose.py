"""Compose files: what their builds need, with the index added. Pure.

Rules of https://docs.docker.com/reference/compose-file/build/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.builds.given import Passed
from deployer.container_files import escaped

_ROOT = frozenset(
    ["-f", "--file", "-p", "--project-name", "--profile", "--env-file", "--project-directory", "--parallel"]
)


@dataclass(frozen=True, kw_only=True)
class Composer:
    """A program for compose files. ``escaped``: whether it prints dollar signs as a file has them. ``network``: a
    prefix of the option for options of each build; empty where a file can say it."""

    argv: tuple[str, ...]
    escaped: bool = False
    network: str = ""


COMPOSERS: Mapping[str, Composer] = {
    "docker": Composer(argv=("docker", "compose"), escaped=True),
    "podman": Composer(argv=("podman-compose",), network="--podman-build-args="),
    "nerdctl": Composer(argv=("nerdctl", "compose")),
}
"""By the builder."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """How a service is built. ``file``: path of its build file; ``inline``: the text of it where it is in the compose
    file. ``context``: a directory, or an address. ``given``: names of build arguments."""

    service: str
    context: str
    file: str
    inline: str
    network: str
    given: frozenset[str]

    @property
    def is_here(self) -> bool:
        return bool(self.inline) or not ("://" in self.context or self.context.startswith("git@"))

    @property
    def path(self) -> Path | None:
        """The build file that is named, or None for the builder's default one."""
        return Path(self.context, self.file) if self.file else None


def split(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The options that come before the command ``build``, and all other words."""
    before: list[str] = []
    after: list[str] = []
    left = iter(words)
    for word in left:
        name, given, _ = word.partition("=")
        if name not in _ROOT:
            after.append(word)
            continue
        before.append(word)
        if not given:
            before += [value for value in [next(left, None)] if value is not None]
    return before, after


def builds(document: Mapping[str, Any]) -> list[Build]:
    """The builds of a resolved compose file."""
    return [_build(name, service["build"]) for name, service in _services(document).items()]


def _services(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = document.get("services") or {}
    return {name: service for name, service in found.items() if isinstance(service, Mapping) and service.get("build")}


def _build(service: str, build: Any) -> Build:
    build = _whole(build)
    return Build(
        service=service,
        context=str(build.get("context") or "."),
        file=str(build.get("dockerfile") or ""),
        inline=str(build.get("dockerfile_inline") or ""),
        network=str(build.get("network") or ""),
        given=frozenset(_named(build.get("args"))),
    )


def _whole(build: Any) -> Mapping[str, Any]:
    return build if isinstance(build, Mapping) else {"context": str(build)}


def _named(arguments: Any) -> dict[str, Any]:
    """Build arguments, which may be a list of ``NAME=VALUE``; one without a value has that of the environment."""
    if isinstance(arguments, Mapping):
        return dict(arguments)
    pairs = (str(one).partition("=") for one in arguments or ())
    return {name: value if given else None for name, given, value in pairs}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the build of a service gets. ``file``: path of its changed build file.
    ``secrets``: paths by id. ``network``: empty for that of the compose file."""

    passed: Passed
    file: str
    secrets: Mapping[str, str]
    network: str
    inherits: bool


def changed(document: Mapping[str, Any], changes: Mapping[str, Change]) -> dict[str, Any]:
    """A compose file of builds alone, as :func:`escaped` for a file. ``changes``: by service."""
    services: dict[str, Any] = {}
    secrets: dict[str, Any] = {}
    for name, service in _services(document).items():
        build = dict(_whole(service["build"]))
        if change := changes.get(name):
            build = _with(build, change, name)
            secrets |= {f"{name}-{key}": {"file": path} for key, path in change.secrets.items()}
        kept = {key: service[key] for key in ("image", "platform") if key in service}
        services[name] = {**kept, "build": build}
        for secret in build.get("secrets") or ():
            own = secret if isinstance(secret, str) else str(secret.get("source"))
            if own in (document.get("secrets") or {}):
                secrets.setdefault(own, document["secrets"][own])
    whole = {"services": services, "secrets": secrets}
    return {key: escaped(value) for key, value in whole.items() if value}


def _with(build: Mapping[str, Any], change: Change, service: str) -> dict[str, Any]:
    proxies = {} if change.inherits else change.passed.proxies
    kept = {key: value for key, value in build.items() if key != "dockerfile_inline"}
    more: dict[str, Any] = {"dockerfile": change.file}
    if change.network:
        more["network"] = change.network
    if arguments := {**_named(build.get("args")), **change.passed.arguments, **proxies}:
        more["args"] = arguments
    own = [{"source": f"{service}-{key}", "target": key} for key in change.secrets]
    if secrets := [*(build.get("secrets") or ()), *own]:
        more["secrets"] = secrets
    return {**kept, **more}


def plain(value: Any) -> Any:
    """``value`` without what :func:`~deployer.container_files.escaped` adds."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    return value
