"""Checks before an index is created, changed or deleted. Pure.

The server itself accepts missing bases, merges mirrors, and deletes the bases of other indexes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from deployer.devpi.fields import Value
from deployer.devpi.topology import Node, Topology
from deployer.errors import ConflictError, Refused, ServerRefused
from deployer.plan.order import below, merged
from deployer.secrets import mask_url


def admit(name: str, fields: Mapping[str, Value], current: Topology) -> None:
    """Raise ServerRefused for missing or circular bases, Refused for merged mirrors and credentials in a url."""
    known = current.indexes.get(name, Node())
    node = replace(known, fields={**known.fields, **fields})
    after = replace(current, indexes={**current.indexes, name: node})
    _check_bases(name, after)
    url = str(fields.get("mirror_url", ""))
    if mask_url(url) != url:
        raise Refused(
            f"the url {mask_url(url)} holds credentials, which devpi shows to every reader",
            hint="leave user and password out of the url",
        )
    for index in after.indexes:
        mirrors = merged(after.indexes, index)
        if mirrors and merged(current.indexes, index) != mirrors:
            raise Refused(
                f"{index} would merge the mirrors {' and '.join(mirrors)}: whoever publishes a higher version of a "
                "private name on one of them wins, in any order of bases",
                hint="declare one of type ordered in the profile, or give it one mirror and upload what is private",
            )


def _check_bases(name: str, after: Topology) -> None:
    for base in after.indexes[name].bases:
        if base not in after.indexes:
            near = get_close_matches(base, after.indexes, n=1)
            raise ServerRefused(
                f"{name}: the base {base} does not exist",
                hint=f"did you mean '{near[0]}'?" if near else "list the indexes: deployer index list",
            )
        if name in below(after.indexes, base):
            raise ServerRefused(f"{name}: its base {base} would build on {name} itself", hint="take it out of bases")


def require_index(name: str, current: Topology, *, kind: str = "") -> Node:
    """Return the index ``name``. Raises ServerRefused when it does not exist or is not of the type ``kind``."""
    node = current.indexes.get(name)
    if node is None:
        near = get_close_matches(name, current.indexes, n=1)
        raise ServerRefused(
            f"there is no index {name}",
            hint=f"did you mean '{near[0]}'?" if near else "list the indexes: deployer index list",
        )
    if kind and node.type != kind:
        raise ServerRefused(
            f"{name} is a {node.type} index, not a {kind}",
            hint=f"list those of that type: deployer index list --type {kind}",
        )
    return node


def admit_removal(name: str, current: Topology, *, kind: str = "") -> None:
    """Raise ServerRefused when the index does not exist, ConflictError when it is a base of others."""
    require_index(name, current, kind=kind)
    if heirs := current.heirs(name):
        raise ConflictError(
            f"{name} is a base of {', '.join(heirs)}, which would be left without it",
            hint=f"deployer index modify {heirs[0]} bases=... without it, first",
        )
