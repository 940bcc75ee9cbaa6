"""Plugins that a server of ours must not have, as data: why, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from deployer.profile.problems import Problem, Source, shown

UNFIT: Mapping[str, tuple[str, str]] = {
    "devpi-server": ("is the server itself", "choose it with server.version"),
    "devpi-web": ("comes with the server", "remove it, and set server.web: devpi-web"),
    "devpi-tokens": ("comes with the server", "remove it: deployer token create"),
    "devpi-client": ("is no plugin of the server", "remove it"),
    "devpi-lockdown": (
        "protects nothing: it only answers the auth_request of a proxy, and answers a wrong password with 200",
        "remove it, and name the readers of each index: read",
    ),
    "devpi-remote-user": (
        "believes the header X-Remote-User, which every client may send",
        "remove it; accounts from a directory: devpi-ldap",
    ),
    "devpi-constrained": (
        "lets through every wheel whose project has a - in its name, and filters only the index that a client names",
        "remove it, and set allow or deny of the mirror",
    ),
    "devpi-private-mirrors": (
        "serves the public package of a private name until the private one is cached",
        "remove it, and set type: ordered of the index, with owns of the private mirror",
    ),
    "devpi-postgresql": (
        "keeps data where backup, check and upgrade don't find it",
        "remove it: the server's own database is used",
    ),
}
"""Name of the plugin -> (reason, cure)."""
_NEEDS_WEB = ("devpi-semantic-ui", "devpi-semantic-ui-ng", "devpi-theme-16", "devpi-passwd-reset", "devpi-admin")
"""Plugins that change the pages of devpi-web."""


def unfit(pins: object, *, web: object, source: Source | None) -> Iterator[Problem]:
    """The problems of ``server.plugins``; ``web``: ``server.web``."""
    seen: set[str] = set()
    for pin in pins if isinstance(pins, list | tuple) else ():
        if not isinstance(pin, str):
            continue
        name = re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", pin.strip())[0]).lower()
        reason, cure = UNFIT.get(name, ("", ""))
        if not reason and name in _NEEDS_WEB and web != "devpi-web":
            reason, cure = "changes the pages of devpi-web, which are not served", "set server.web: devpi-web"
        if not reason and name in seen:
            reason, cure = "is listed twice", "remove one of them"
        seen.add(name)
        if reason:
            yield Problem(message=f"server.plugins: {shown(name)} {reason}", hint=cure, source=source)
