"""Run our image once on data: copy it, check it, back it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from deployer.engines.base import Engine
from deployer.errors import DeployerError, EngineError, of_refusal
from deployer.protocol import FINAL, ExitCode, Refusal, parsed
from deployer.spec import ContainerSpec, EngineName, ExecResult, Mount, features

TIMEOUT = timedelta(days=1)
"""Limit of a run: large data on a slow disk takes hours."""


def on_data(
    spec: ContainerSpec,
    *,
    purpose: str,
    engine: EngineName,
    image: str,
    mounts: Sequence[Mount],
    command: Callable[[Sequence[str]], tuple[str, ...]],
) -> ContainerSpec:
    """Return a one-off run with the user, limits and hardening of ``spec``. Pure.

    ``purpose``: suffix of the container's name. ``mounts``: data with container paths; a process uses the host paths.
    ``command``: returns the arguments of a server verb for these paths.
    Mount a new volume at ``/data``: there it gets the user of our image; elsewhere docker gives it to root.
    """
    inside = features(engine).containers
    paths = [mount.target if inside else mount.source for mount in mounts]
    return replace(
        spec,
        name=f"{spec.name}-{purpose}",
        image=image if inside else spec.image,
        mounts=tuple(mounts) if inside else (),
        command=command(paths),
        ports=(),
        env=(),
        restart="no",
    )


def answer(engine: Engine, spec: ContainerSpec, *, doing: str, again: str) -> Any:
    """Run ``spec`` to its end and return its JSON.

    ``doing``: what runs, as the subject of an error; ``again``: the command of the hint. Raises what the run reports.
    """
    done = engine.once(spec, timeout=TIMEOUT)
    if done.returncode:
        raise failure(done, doing=doing, again=again)
    try:
        return parsed(done.stdout)
    except ValueError:
        raise EngineError(f"{doing} did not answer with JSON", hint=f"run {again} again") from None


def failure(done: ExecResult, *, doing: str, again: str) -> DeployerError:
    """The error for a run that failed: its own refusal, if that is how its output ends."""
    lines = done.stderr.splitlines()
    refusal = Refusal.parse(lines)
    if refusal is not None and refusal.code in {*FINAL, ExitCode.LOCKED}:
        return of_refusal(refusal)
    return EngineError(
        f"{doing} ended with exit code {done.returncode}",
        hint=f"fix the cause and run {again} again",
        details=tuple(lines[-5:]),
    )
