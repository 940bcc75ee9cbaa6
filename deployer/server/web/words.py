"""Numbers and times as people read them. Pure."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("kB", "MB", "GB", "TB")


def size(count: int | float | None) -> str:
    """Bytes, in powers of 1000 as disks are sold: ``1.2 MB``. Empty where it is unknown."""
    if count is None:
        return ""
    value, unit = float(count), "bytes"
    for larger in _UNITS:
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 99.5 else f"{value:.1f} {unit}"


def number(count: int | float) -> str:
    """A count, with thin groups of three digits: ``12 345``."""
    if count < 10 and count != int(count):
        return f"{count:.2g}"
    return f"{count:,.0f}".replace(",", "\u202f")


def share(part: int, of: int) -> str:
    """Percent; a dash where there is nothing to have a share of. Never rounded up to all of it."""
    if not of:
        return "–"
    return f"{min(round(100 * part / of), 100 if part == of else 99)} %"


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def day(text: object) -> str:
    """The date of an ISO time, ``2026-11-28``; empty for anything else."""
    found = moment(text)
    return "" if found is None else found.date().isoformat()


def moment(text: object) -> datetime | None:
    """The time that an upstream states; None for anything else."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def seconds(count: float) -> str:
    """A short time: ``12 ms``, ``1.5 s``."""
    return f"{1000 * count:.0f} ms" if count < 0.9995 else f"{count:.1f} s"
