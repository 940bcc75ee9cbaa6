"""A supervisor that is started before it is needed: its server loads meanwhile, and does nothing else.

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
    descriptors: tuple[int, ...]
    process: subprocess.Popen[bytes]


_standby: _Standby | None = None


def begin(
    argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start the command, which waits for a line on its standard input. Raises EngineUnreachable, OSError."""
    global _standby
    _end()
    process = spawned(argv, env=env, errors_to=errors_to, descriptors=descriptors)
    _standby = _Standby(argv=tuple(argv), env=env, descriptors=tuple(descriptors), process=process)
    return process


def take(
    argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """The process that stands by for exactly this command, else a new one with these ``descriptors``.

    Raises EngineUnreachable.
    """
    global _standby
    wanted = (tuple(argv), env, tuple(descriptors))
    if _standby is not None and (_standby.argv, _standby.env, _standby.descriptors) == wanted:
        standby, _standby = _standby, None
        if standby.process.poll() is None:
            return standby.process
    _end()
    return spawned(argv, env=env, errors_to=errors_to, descriptors=descriptors)


def _end() -> None:
    global _standby
    standby, _standby = _standby, None
    if standby is not None:
        standby.process.kill()
        standby.process.communicate()
