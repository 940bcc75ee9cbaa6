"""Check names before they become part of an address of devpi's API."""

from __future__ import annotations

import re
from urllib.parse import quote

from deployer.devpi.fields import normal
from deployer.errors import ProfileError, UsageError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def user_name(name: str) -> str:
    """Return ``name``. Raises ProfileError when it is not a valid user name."""
    if not _NAME.fullmatch(name):
        raise ProfileError(f"{name!r} can't be a user's name", hint="letters, digits, '_', '.' and '-'")
    return name


def index_name(name: str) -> str:
    """Return ``name``. Raises ProfileError when it is not a valid ``user/name``."""
    user, _, index = name.partition("/")
    if not (_NAME.fullmatch(user) and _NAME.fullmatch(index)):
        raise ProfileError(f"{name!r} can't be an index", hint="write it as user/name")
    return name


def project_name(name: str) -> str:
    """Return the PEP 503 normal form. Raises UsageError for an invalid name."""
    if not _NAME.fullmatch(name) or not name[-1].isalnum():
        raise UsageError(f"{name!r} can't be a project's name", hint="letters, digits, '-', '_' and '.'")
    return normal(name)


def step(text: str) -> str:
    """Quote any text (a version, an id) as one step of a path.

    Raises UsageError for ``.`` and ``..``: httpx resolves them, so the request would go to the index or user above."""
    if text in ("", ".", ".."):
        raise UsageError(f"{text!r} can't be a version or an id", hint="see what there is with the list command")
    return quote(text, safe="")
