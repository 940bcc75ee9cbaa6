"""The engines, and finding one that really answers. Importing this costs nothing: each engine is imported when used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from deployer.engines.base import Engine
from deployer.errors import EngineUnreachable
from deployer.spec import EngineInfo, EngineName

DOCKER_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The engine that answers, and why those before it were passed over: ``(name, short reason)``."""

    engine: Engine
    info: EngineInfo
    passed_over: tuple[tuple[EngineName, str], ...] = ()


def open_engine(name: EngineName) -> Engine:
    """The engine ``name``; whether it answers is another question (``probe``)."""
    match name:
        case EngineName.NERDCTL | EngineName.PODMAN:
            return _by_argv(name)
        case EngineName.DOCKER:
            return _docker()
        case EngineName.PROCESS:
            from deployer.engines.process import ProcessEngine
            from deployer.host.state_dir import state_root

            return ProcessEngine(state_root())
        case _:
            assert_never(name)


def _by_argv(name: EngineName) -> Engine:
    from deployer.engines.argv import ArgvEngine
    from deployer.engines.dialects import DIALECTS

    return ArgvEngine(DIALECTS[name])


def _docker() -> Engine:
    """Its command line, which starts faster than the ``docker`` package is imported; that where there is none."""
    socket_is_there = "DOCKER_HOST" in os.environ or DOCKER_SOCKET.exists()
    if shutil.which("docker") is None and socket_is_there:
        from deployer.engines.sdk import SdkEngine

        return SdkEngine()
    return _by_argv(EngineName.DOCKER)


def detect(wanted: str, *, open_engine: Callable[[EngineName], Engine] = open_engine) -> Detection:
    """The engine ``wanted``, or for ``auto`` the first that answers of nerdctl, docker, podman and process.

    Raises EngineUnreachable with the cause and the cure.
    """
    if wanted != "auto":
        engine = open_engine(EngineName(wanted))
        return Detection(engine=engine, info=engine.probe())
    passed: list[tuple[EngineName, str]] = []
    for name in EngineName:
        engine = open_engine(name)
        try:
            return Detection(engine=engine, info=engine.probe(), passed_over=tuple(passed))
        except EngineUnreachable as error:
            passed.append((name, _short(error)))
            if name is EngineName.PROCESS:
                raise EngineUnreachable(
                    error.message, hint=error.hint, details=tuple(f"{name}: {reason}" for name, reason in passed[:-1])
                ) from None
    raise AssertionError("process is the last engine")


def _short(error: EngineUnreachable) -> str:
    """A few words of a long reason."""
    for mark, words in (
        ("not installed", "not installed"),
        ("permission denied", "permission denied"),
        ("did not answer", "does not answer in time"),
        ("does not answer", "not running"),
    ):
        if mark in error.message:
            return words
    return error.message
