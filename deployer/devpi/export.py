"""Write the topology of a server as a profile. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.devpi.declared import USER_KEYS, told
from deployer.devpi.topology import ROOT, Topology, bases_first
from deployer.plan.order import below, merged
from deployer.secrets import mask_url

_BEARER = ("token_as", "bearer")
_ALWAYS = ("root/pypi", "root/dev")
"""The indexes of every profile that declares none."""


def exported(topology: Topology, *, meant: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys ``users``, ``indexes`` and ``clients`` of a profile that declares exactly ``topology``, and no secret.

    ``meant``: the profile that was applied last, as JSON. What no server knows is taken from it: references to
    credentials (of a mirror that still has that address), insistence, and the index of the clients.
    An index whose type a profile does not know is left out.
    """
    meant = meant or {}
    users = {
        name: fields
        for name, node in sorted(topology.users.items())
        if (fields := {key: node.fields[key] for key in USER_KEYS if key in node.fields}) or name != ROOT
    }
    known = {name: told(node) for name, node in sorted(topology.indexes.items())}
    indexes: dict[str, Any] = {name: said for name, said in known.items() if said is not None}
    _tell_owners(topology, indexes)
    for name, said in indexes.items():
        said.update(_only_meant(said, (meant.get("indexes") or {}).get(name) or {}))
    for name in _ALWAYS:
        indexes.setdefault(name, None)
    index = clients_index(topology, meant)
    return {"users": users, "indexes": indexes, **({"clients": {"index": index}} if index != _ALWAYS[1] else {})}


def clients_index(topology: Topology, meant: Mapping[str, Any]) -> str:
    """The one that was meant, or the usual one; where neither is there, one that no other builds on: a profile has to
    name one that exists."""
    named = str((meant.get("clients") or {}).get("index", _ALWAYS[1]))
    tops = [name for name, node in topology.indexes.items() if told(node) is not None and not topology.heirs(name)]
    known = [name for name in (named, _ALWAYS[1]) if name in topology.indexes]
    return next(iter((*known, *sorted(tops))), _ALWAYS[1])


def _only_meant(said: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {}
    same = str(said.get("url", "")).rstrip("/") == str(declared.get("url") or "").rstrip("/")
    if said["type"] == "mirror" and same and declared.get("credentials"):
        given = declared["credentials"]
        more["credentials"] = {key: value for key, value in given.items() if value and (key, value) != _BEARER}
    if said["type"] == "stage" and declared.get("accept_confusion"):
        more["accept_confusion"] = True
    return more


def _tell_owners(topology: Topology, indexes: dict[str, Any]) -> None:
    """A profile says of the bases what the server says of an ordered index: what an index owns, those above it know."""
    for name in bases_first(topology.indexes):
        fields = topology.indexes[name].fields
        closed = _words(fields.get("only_owned"))
        for base, _, pattern in (entry.partition(":") for entry in _words(fields.get("owns"))):
            if (said := indexes.get(base)) is None:
                continue
            known = said.setdefault("owns", [])
            known_below = (base,) if base == name or (base in closed and not known) else below(topology.indexes, base)
            if not any(pattern in (indexes.get(one) or {}).get("owns", ()) for one in known_below):
                known.append(pattern)
        for base in closed:
            if indexes.get(base) is not None:
                indexes[base]["only_owned"] = True
    for said in indexes.values():
        if not said.get("owns", True):
            del said["owns"]


def _words(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def hidden_credentials(topology: Topology) -> tuple[str, ...]:
    """The mirrors whose address on the server holds a user and a password, which no profile may."""
    urls = {name: str(node.fields.get("mirror_url", "")) for name, node in topology.indexes.items()}
    return tuple(name for name, url in urls.items() if mask_url(url) != url)


def refused(topology: Topology, profile: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The indexes that an ``exported`` profile has and `up` would not make, because they merge these mirrors."""
    return {
        name: mirrors
        for name, said in profile["indexes"].items()
        if said and not said.get("accept_confusion") and (mirrors := merged(topology.indexes, name))
    }
