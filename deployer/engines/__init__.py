"""The engines, and detecting one that answers. Importing this is cheap: an engine is imported when it is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployer.engines.base import Engine
from deployer.errors import EngineUnreachable
from deployer.spec import EngineInfo, EngineName

DOCKER_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The engine that answers, and the engines that did not: ``(name, short reason)``."""

    engine: Engine
    info: EngineInfo
    passed_over: tuple[tuple[EngineName, str], ...] = ()


def open_engine(name: EngineName) -> Engine:
    """Return the engine ``name``, without asking whether it answers (``probe``)."""
    from deployer.engines.dialects import DOCKER, dialect_of

    dialect = dialect_of(name)
    if dialect is None:
        from deployer.engines.process import ProcessEngine
        from deployer.host.state_dir import state_root

        return ProcessEngine(state_root())
    if dialect is DOCKER and _only_socket():
        from deployer.engines.sdk import SdkEngine

        return SdkEngine()
    from deployer.engines.argv import ArgvEngine

    return ArgvEngine(dialect)


def _only_socket() -> bool:
    """Whether docker has a socket here and no command line, which starts faster than the ``docker`` package loads."""
    return shutil.which("docker") is None and ("DOCKER_HOST" in os.environ or DOCKER_SOCKET.exists())


def detect(wanted: str, *, open_engine: Callable[[EngineName], Engine] = open_engine) -> Detection:
    """Return the engine ``wanted``, or for ``auto`` the first of :class:`EngineName` that answers.

    Raises EngineUnreachable.
    """
    if wanted != "auto":
        engine = open_engine(EngineName(wanted))
        return Detection(engine=engine, info=engine.probe())
    failures: list[tuple[EngineName, EngineUnreachable]] = []
    for name in EngineName:
        engine = open_engine(name)
        passed = tuple((name, _short(error)) for name, error in failures)
        try:
            return Detection(engine=engine, info=engine.probe(), passed_over=passed)
        except EngineUnreachable as error:
            failures.append((name, error))
    # The last engine needs the least, so its hint is the easiest to follow.
    last = failures[-1][1]
    raise EngineUnreachable(last.message, hint=last.hint, details=tuple(f"{name}: {why}" for name, why in passed))


def _short(error: EngineUnreachable) -> str:
    """Shorten the reason to a few words."""
    for mark, words in (
        ("not installed", "not installed"),
        ("permission denied", "permission denied"),
        ("did not answer", "timeout"),
        ("does not answer", "not running"),
    ):
        if mark in error.message:
            return words
    return error.message
