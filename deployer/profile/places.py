"""Where ``data`` of a profile may be, by name."""

from __future__ import annotations

DATA_CHOICES: dict[str, str] = {
    "cache": "/var/cache/devpi",
    "lib": "/var/lib/devpi",
    "opt": "/opt/devpi",
    "home": "~/.cache/devpi",
    "temp": "/tmp/devpi-{uid}",  # noqa: S108 - 0700, and refused when it is another's
}
"""The seats of a data directory that the Filesystem Hierarchy Standard and XDG suggest, by their short names.
``temp`` is for a deployment that is thrown away: ``down`` deletes it."""
