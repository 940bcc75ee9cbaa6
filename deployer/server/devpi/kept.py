"""A file of a mirror that devpi is to know: what both versions of devpi-server are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """``path``: below the mirror ``index``. ``file``: the file object of its page. ``content``: what devpi takes, or
    None for the entry alone; ``digests``, ``size`` and ``last_modified`` are the content's."""

    index: str
    path: str
    project: str
    file: Mapping[str, Any]
    content: Any = None
    digests: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    last_modified: str = ""

    @property
    def place(self) -> str:
        return f"{self.index}/{self.path}"
