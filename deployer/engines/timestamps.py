"""Parse ``--since``: a time, or a duration before now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from deployer.errors import UsageError

_PART = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(since: str) -> datetime:
    """An RFC 3339 time, or a duration before now (``90s``, ``10m``, ``1h30m``), in UTC. Raises UsageError."""
    parts = _PART.findall(since)
    try:
        if parts and "".join(number + unit for number, unit in parts) == since:
            return datetime.now(UTC) - sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
        return datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"--since {since}: neither a time nor a duration", hint="for example --since 10m") from None
