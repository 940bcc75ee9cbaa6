"""Parse the value of ``--since`` and the like: a time, or a duration before now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from deployer.errors import UsageError

_PART = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str = "--since") -> datetime:
    """An RFC 3339 time, or a duration before now (``90s``, ``10m``, ``1h30m``, ``12w``, ``0``), in UTC.

    Raises UsageError, which names the ``option``.
    """
    parts = _PART.findall(text)
    try:
        if text == "0" or (parts and "".join(number + unit for number, unit in parts) == text):
            return datetime.now(UTC) - sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: neither a time nor a duration", hint=f"for example {option} 36h") from None
