"""Tokens for jobs, each cut from one stored token of its user by limits that are added to it (a macaroon).

Nothing is written for a job: a server with thousands of jobs a day keeps one token for each of their users, and who
revokes that one ends all that were cut from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from devpi_tokens import server as tokens
from pymacaroons import MACAROON_V2, Macaroon

from deployer.server.devpi.audit import below
from deployer.server.devpi.token_scope import READ

STORED = "oidc"
"""The id of the stored token; other ids have eight characters."""
_SHOWN = ("allowed=by server.oidc", "indexes=by server.oidc")
"""What lists show of it. The limits of a job are in the job's own token."""


def cut(request: Any, user: str, *, allowed: Sequence[str], indexes: Sequence[str], expires: int) -> str | None:
    """A token of ``user`` until ``expires`` (seconds since 1970); None where there is no such user or index.

    ``allowed``: devpi's permissions. One that may read is valid for the bases of the indexes, too: pages link there.
    """
    xom = request.registry["xom"]
    with xom.keyfs.read_transaction():
        valid = _valid(xom.model, indexes, reads=READ in allowed)
        key = _key(xom.model, user)
    if not valid or key is None:
        return None
    if not key:
        with xom.keyfs.write_transaction():
            key = _key(xom.model, user) or _stored(xom.model.get_user(user))
    utility = tokens.devpi_token_utility(request)
    made = Macaroon(identifier=f"{user}-{STORED}", key=utility.derive_key(key), version=MACAROON_V2)
    for limit in (f"allowed={','.join(sorted(allowed))}", f"expires={expires}", f"indexes={','.join(valid)}"):
        made.add_first_party_caveat(limit)
    return f"devpi-{made.serialize()}"


def _valid(model: Any, indexes: Sequence[str], *, reads: bool) -> list[str]:
    stages = [stage for stage in map(model.getstage, indexes) if stage is not None]
    found = [below(stage) if reads else (stage,) for stage in stages]
    return sorted({stage.name for part in found for stage in part})


def _key(model: Any, name: str) -> str | None:
    """The key of the stored token; empty where there is none yet, None without the user."""
    user = model.get_user(name)
    if user is None:
        return None
    return str(user.get(credentials=True).get("tokens", {}).get(STORED, {}).get("key", ""))


def _stored(user: Any) -> str:
    key = secrets.token_urlsafe(32)
    with user.key.update() as found:
        found.setdefault("tokens", {})[STORED] = {"key": key, "restrictions": list(_SHOWN)}
    return key
