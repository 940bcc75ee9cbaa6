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


def unfit(how: str) -> Refusal:
    """Of a devpi-server whose code is not as it is known; ``how``: what it does otherwise."""
    return Refusal(f"this devpi-server {how}", cure="run the version of devpi-server that deployer names", code=UNSAFE)
