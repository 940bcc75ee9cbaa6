"""Answers of an untrusted server: checked, and cleaned before they are printed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.protocol import parsed
from deployer.secrets import mask

JsonObject = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    reason: str = ""

    def json(self) -> JsonObject | None:
        """The body as a JSON object; None when it is anything else."""
        try:
            value = parsed(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def start(self) -> str:
        """The start of the body, for messages."""
        return line(self.body[:200].decode("utf-8", "replace"))


def text(value: object) -> str:
    """``value`` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def line(text: str) -> str:
    """One short line without control characters and without secrets."""
    words = " ".join(mask(text[:2000]).split())
    return "".join(char if char.isprintable() else "?" for char in words)[:300]
