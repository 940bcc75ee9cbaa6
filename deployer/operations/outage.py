"""What a command gets when the index does not answer: what to do, or the index that may stand in for it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from deployer.clients.client import ClientSettings

PATIENCE = 2.0
"""Seconds for one connection."""


def answering(name: str, settings: ClientSettings) -> tuple[ClientSettings, tuple[str, ...]]:
    """``settings`` if their index takes connections, else those of its upstream, with a warning.

    Clients repeat refused connections for up to a minute, and then name their own causes. The upstream is used only
    where ``clients.fallback`` of the last ``up`` allows it. Raises NotReadyError.
    """
    why = _refused(settings.index_url)
    if not why:
        return settings, ()
    from deployer.deployment.record import read_applied
    from deployer.profile.fallback import NoFallback, fallback

    applied = read_applied(name)
    profile: Mapping[str, Any] = applied.profile if applied is not None else {}
    if not profile.get("clients", {}).get("fallback"):
        raise _down(name, settings, why)
    index = "/".join(settings.index_url.partition("/+simple")[0].split("/")[-2:])
    try:
        url = fallback(profile.get("indexes", {}), index)
    except NoFallback as no:
        raise _down(name, settings, why, details=(f"no fallback: {no}",)) from None
    warning = f"{settings.index_url} does not answer ({why}): {url} is used instead (clients.fallback)"
    return replace(settings, index_url=url), (warning,)


def _refused(url: str) -> str:
    """Why nobody takes a connection at ``url``; empty when somebody does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE).close()
    except TimeoutError:
        return f"no connection within {PATIENCE:.0f} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _down(name: str, settings: ClientSettings, why: str, details: tuple[str, ...] = ()) -> Exception:
    """The failure, with the cause and the cure that ``status`` has."""
    from deployer.errors import DeployerError, NotReadyError
    from deployer.operations.status import status

    message, hint = f"{settings.index_url} does not answer: {why}", "deployer status"
    try:
        found = status(name).error
    except DeployerError as error:
        found = error
    if found is not None:
        message, hint = f"{message}; {found.message}", found.hint
    return NotReadyError(message, hint=hint, details=details)
