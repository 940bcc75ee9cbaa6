"""What a server of ours says when it will not run: exit code, cause and cure are the last two lines of its log."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deployer.errors import ConflictError, DeployerError, NotReadyError, Refused, VerificationError

_CAUSE = re.compile(r"deployer: exit code (\d+): (.+)")
_CURE = re.compile(r"deployer: (.+)")
_SUPERVISOR = "supervisor: "
"""The process engine's own lines, which go on after the server's last one."""
_ERRORS: dict[int, type[DeployerError]] = {kind.exit_code: kind for kind in (ConflictError, VerificationError, Refused)}


def refusal(name: str, lines: Sequence[str]) -> DeployerError | None:
    """Why the server ``name`` refused to run, by the end of its log; None when it did not.

    What no restart can cure has the exit code that the server ended with, all else is a NotReadyError.
    """
    said = [line for line in lines if not line.startswith(_SUPERVISOR)][-2:]
    if len(said) < 2:
        return None
    cause, cure = _CAUSE.fullmatch(said[0]), _CURE.fullmatch(said[1])
    if cause is None or cure is None:
        return None
    return _ERRORS.get(int(cause[1]), NotReadyError)(f"{name} will not run: {cause[2]}", hint=cure[1])
