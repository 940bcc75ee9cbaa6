"""The refusal of a server: the last two lines of its log."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.errors import DeployerError, of_refusal
from deployer.protocol import Refusal


def refusal(name: str, lines: Sequence[str]) -> DeployerError | None:
    """The error for the server ``name`` when the end of its log is a refusal; else None.

    An exit code after which no restart can help is kept; any other becomes a NotReadyError.
    """
    found = Refusal.parse(lines)
    return None if found is None else of_refusal(found, prefix=f"{name} refused to start: ")
