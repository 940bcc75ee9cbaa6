"""Exit codes, and the two lines with which a server refuses to run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``deployer`` and of ``python -m deployer.server``."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    PROFILE = 3
    ENGINE = 4
    CONFLICT = 5
    NOT_READY = 6
    SERVER_REFUSED = 7
    CLIENT_FILE = 8
    VERIFICATION = 9
    DRIFT = 10
    REFUSED = 11
    OUTPUT = 74
    LOCKED = 75
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


FINAL = frozenset({ExitCode.PROFILE, ExitCode.CONFLICT, ExitCode.VERIFICATION, ExitCode.REFUSED})
"""Exit codes of a server after which a restart cannot help."""
SUPERVISOR = "supervisor: "
"""Start of the supervisor's own lines, which follow the server's last lines in its log."""
_ERROR = re.compile(r"deployer: exit code (\d+): (.+)")
_HINT = re.compile(r"deployer: (.+)")


class Refusal(Exception):
    """The server refuses to run: ``message`` says what failed, ``hint`` what to do; one line each."""

    def __init__(self, message: str, *, hint: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    @property
    def text(self) -> str:
        """The two lines that end the server's output."""
        return f"deployer: exit code {int(self.code)}: {self.message}\ndeployer: {self.hint}\n"

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Refusal | None:
        """The refusal that ends ``lines``; None when they end otherwise."""
        said = [line for line in lines if not line.startswith(SUPERVISOR)][-2:]
        if len(said) < 2:
            return None
        error, hint = _ERROR.fullmatch(said[0]), _HINT.fullmatch(said[1])
        if error is None or hint is None:
            return None
        return cls(error[2], hint=hint[1], code=int(error[1]))
