"""Docker's command line, at the manager that a profile names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from deployer.engines.client import Client
from deployer.engines.dialects import DOCKER
from deployer.errors import EngineError, EngineUnreachable
from deployer.host.runner import Completed, ProcessFailed, Runner
from deployer.protocol import parsed

_NO_MANAGER = re.compile(r"this node is not a swarm manager|not part of a swarm", re.IGNORECASE)

_ABSENT = re.compile(r"^(Error: |Error response from daemon: )?(no such|.* not found)", re.IGNORECASE | re.MULTILINE)
"""Clients have different words for an object that is not there. One that reaches no engine has none of them."""


class Docker(Client):
    """``context``: the name of docker's context; empty: the current one."""

    def __init__(self, context: str, runner: Runner) -> None:
        super().__init__(DOCKER, runner)
        self._of_swarm, self.context = runner, context
        self._words = ("docker", *(("--context", context) if context else ()))

    def at(self, context: str) -> Docker:
        """The same at another node."""
        return Docker(context, self._of_swarm)

    def call(self, *words: str, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        done = self._of_swarm.run((*self._words, *words), stdin=stdin, timeout=timeout)
        return replace(done, argv=("docker", *words))

    def told(self, *words: str, stdin: bytes) -> Completed:
        """As :meth:`checked`, with standard input."""
        done = self.call(*words, stdin=stdin)
        if done.returncode:
            raise self.failure(done)
        return done

    def failure(self, done: Completed) -> EngineError | Any:
        if _NO_MANAGER.search(done.stderr):
            return no_manager(self.context)
        return super().failure(done)

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """What a listing tells, a JSON object a line."""
        done = self.checked(*words, "--format", "{{json .}}")
        lines = (self.json(replace(done, stdout=line)) for line in done.stdout.splitlines() if line.strip())
        return [line for line in lines if isinstance(line, dict)]

    def inspected(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Docker's answers about objects; one that has gone meanwhile is left out."""
        if not names:
            return []
        done = self.call("inspect", "--type", kind, *names)
        if done.returncode and not _ABSENT.search(done.stderr):
            raise self.failure(done)
        return self.listed(done)

    def lines(self, *words: str) -> Iterator[str]:
        """The lines of a command as they come. Raises EngineError after the last one of a failed command."""
        last = ""
        try:
            for last in self._of_swarm.stream((*self._words, *words)):
                yield last
        except ProcessFailed:
            raise EngineError(f"docker {words[0]} {words[1]}: {last}", hint="deployer status") from None

    def endpoint(self) -> str:
        """The address of the engine, as docker tells it of the context."""
        found = self.checked("context", "inspect", "--format", "{{json .Endpoints.docker.Host}}", *self._named)
        return str(parsed(found.stdout))

    @property
    def _named(self) -> tuple[str, ...]:
        return (self.context,) if self.context else ()

    def knows(self, context: str) -> bool:
        """Whether there is a context of that name."""
        return self.call("context", "inspect", context).returncode == 0


def no_manager(context: str, *, worker: bool = False) -> EngineUnreachable:
    """The error of an engine that manages no swarm. Nobody's engine is made a manager here."""
    where = f" of the context {context}" if context else ""
    if worker:
        return EngineUnreachable(
            f"docker's engine{where} is a worker of its swarm", hint="set swarm.context to the context of a manager"
        )
    return EngineUnreachable(f"docker's engine{where} is in no swarm", hint="docker swarm init")
