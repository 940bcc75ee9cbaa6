"""Why a server must not start: a cause, a cure, and an exit code that no restart can cure."""

from __future__ import annotations

TAKEN, DAMAGED, UNSAFE = 5, 9, 11
"""Exit codes of a refusal: directory or port are in use, the data is damaged, it would not be safe."""
REFUSALS = frozenset({TAKEN, DAMAGED, UNSAFE})


class Refusal(Exception):
    """The server must not start: one line of cause, one of cure, and the exit code."""

    def __init__(self, cause: str, *, cure: str, code: int) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure
        self.code = code
