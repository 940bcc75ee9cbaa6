"""What an operator decides about all mirrors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MirrorRules:
    """``not_found_expiry``: seconds for which the upstream is not asked again for a project that it does not have.
    ``keep_deleted``: projects that an upstream has deleted stay installable.
    """

    not_found_expiry: float = 60.0
    keep_deleted: bool = False
