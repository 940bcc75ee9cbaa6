"""Work that begins before the options of a command line are read: reading them takes a tenth of a second."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from deployer.deployment.record import read_applied
from deployer.engines.process import ProcessEngine
from deployer.errors import DeployerError
from deployer.host.state_dir import state_root
from deployer.operations.recorded import DEFAULT_NAME, NAME
from deployer.profile.places import DATA_CHOICES
from deployer.spec import EngineName

_ELSEWHERE = ("--engine", "--data", "--set")
"""Options with which the profile `ci` may mean another engine or directory."""


def load_server(words: Sequence[str]) -> None:
    """Let the server of a stopped deployment load, if the process engine ran it last, and that of a new one of the
    profile ``ci``; ``words``: a command line.

    The plan decides whether it serves. A failure is left to the command itself, which meets it again.
    """
    name = _value("--name", words) or DEFAULT_NAME
    if not re.fullmatch(NAME, name):
        return
    with suppress(DeployerError, OSError):
        applied = read_applied(name)
        if applied is not None and applied.engine == EngineName.PROCESS:
            ProcessEngine(state_root()).stand_by(name, applied.data_source)
        elif applied is None and "ci" in _chosen(words) and not any(_value(key, words) for key in _ELSEWHERE):
            ProcessEngine(state_root()).stand_by(name, thrown_away(name))


def thrown_away(name: str) -> str:
    """Where the plan puts data that is thrown away: :func:`deployer.plan.data.data_path`, without its imports."""
    return DATA_CHOICES["temp"].format(uid=os.getuid()) + ("" if name == DEFAULT_NAME else f"-{name}")


def _chosen(words: Sequence[str]) -> tuple[str, str]:
    return _value("--profile", words), _value("-p", words)


def _value(option: str, words: Sequence[str]) -> str:
    """The value of an option, read before the options are; else that of its variable."""
    for word, following in pairwise((*words, "")):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return os.environ.get("DEPLOYER_" + option.removeprefix("--").upper(), "")
