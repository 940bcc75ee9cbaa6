"""An engine that says what a test wants it to say of one container, for what only looks on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from deployer.engines.base import Engine
from deployer.errors import EngineError
from deployer.spec import Container, EngineName, State


def container(state: State = State.RUNNING, **changed: object) -> Container:
    """A container of ours in ``state``."""
    fields: dict[str, object] = {"id": "1", "name": "devpi", "state": state, "image": "demo", "started_at": "1st"}
    return Container(**(fields | changed))  # type: ignore[arg-type]


class ScriptedEngine:
    """Answers each ``inspect`` with the next of ``says``, and the last of them for ever after."""

    name = EngineName.DOCKER

    def __init__(
        self, *says: Container | EngineError | None, log: Sequence[str] = (), log_error: EngineError | None = None
    ) -> None:
        self.says = list(says or [container()])
        self.log = log
        self.log_error = log_error
        self.inspected = 0

    def inspect(self, name: str) -> Container | None:
        self.inspected += 1
        answer = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        if self.log_error is not None:
            raise self.log_error
        yield from self.log[-tail:] if tail else self.log

    def as_engine(self) -> Engine:
        """For what wants a whole one; a method that is not here is not to be called."""
        return cast("Engine", self)
