"""A supervisor that is started before the plan is made: its server loads meanwhile, and does nothing else.

It is a child of this process with a pipe as its standard input. It ends by itself when this process ends, or is killed,
before the word came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.host.runner import spawned

if TYPE_CHECKING:
    import subprocess


@dataclass(frozen=True, kw_only=True)
class _Standby:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]


_standby: _Standby | None = None


def begin(argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path) -> subprocess.Popen[bytes]:
    """Start the command, which waits for a line on its standard input. Raises EngineUnreachable, OSError."""
    global _standby
    process = spawned(argv, env=env, errors_to=errors_to)
    _standby = _Standby(argv=tuple(argv), env=env, process=process)
    return process


def take(
    argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """The process that stands by for exactly this command, else a new one with these ``descriptors``.

    Raises EngineUnreachable.
    """
    global _standby
    standby, _standby = _standby, None
    if standby is not None:
        fits = (standby.argv, standby.env) == (tuple(argv), env) and not descriptors
        if fits and standby.process.poll() is None:
            return standby.process
        standby.process.kill()
        standby.process.communicate()
    return spawned(argv, env=env, errors_to=errors_to, descriptors=descriptors)
