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
from deployer.spec import EngineName


def load_server(words: Sequence[str]) -> None:
    """Let the server of a stopped deployment load, if the process engine ran it last; ``words``: a command line.

    The plan decides whether it serves. A failure is left to the command itself, which meets it again.
    """
    name = _name_in(words)
    if not re.fullmatch(NAME, name):
        return
    with suppress(DeployerError, OSError):
        applied = read_applied(name)
        if applied is not None and applied.engine == EngineName.PROCESS:
            ProcessEngine(state_root()).stand_by(name, applied.data_source)


def _name_in(words: Sequence[str]) -> str:
    """The value of ``--name``, read before the options are."""
    for word, following in pairwise((*words, "")):
        if word == "--name":
            return following
        if word.startswith("--name="):
            return word.partition("=")[2]
    return os.environ.get("DEPLOYER_NAME", DEFAULT_NAME)
