"""Indexes of a running server: list, create, modify, delete. The caller opens the session and holds the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.deployment.record import read_applied
from deployer.deployment.session import Session
from deployer.devpi.admission import admit, admit_removal, require_index
from deployer.devpi.declared import changed_fields, new_index, parse_settings, shown
from deployer.devpi.names import index_name
from deployer.devpi.topology import Node, Topology
from deployer.errors import ConflictError, Refused, ServerRefused, UsageError
from deployer.protocol import rule_words
from deployer.ui.table import columns


def listed(session: Session, *, only: str) -> list[dict[str, Any]]:
    """Return name and profile keys of the indexes of the type ``only``; empty for every type."""
    indexes = session.api.topology().indexes
    return [
        {"name": name, **shown(node)}
        for name, node in sorted(indexes.items())
        if not only or node.fields.get("type") == only
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows of :func:`listed`: name, type, bases or URL."""
    return columns([(str(row["name"]), str(row.get("type", "")), _source(row)) for row in rows])


def _source(row: Mapping[str, Any]) -> str:
    bases = row.get("bases")
    return ", ".join(bases) if isinstance(bases, list) else str(row.get("url", ""))


def declare(index: str, settings: Sequence[str], *, kind: str) -> Node:
    """Parse the KEY=VALUE arguments of a new index of the type ``kind``. Raises UsageError, ServerRefused."""
    index_name(index)
    if kind == "ordered":
        raise UsageError(
            "an ordered index can be created from a profile only",
            hint="declare it in the profile and run: deployer index apply",
        )
    node = new_index(index, parse_settings(_with_files(settings), kind=kind))
    if kind == "mirror" and not {**node.initial, **node.fields}.get("mirror_url"):
        raise ServerRefused(f"the mirror {index} has no upstream", hint="add url=https://packages.example.com/simple/")
    return node


def create(session: Session, index: str, node: Node) -> None:
    """Create ``index`` from the ``node`` of :func:`declare`. Raises ConflictError, ServerRefused."""
    fields = {**node.initial, **node.fields}
    topology = session.api.topology()
    if index in topology.indexes:
        raise ConflictError(f"the index {index} exists", hint=f"deployer index modify {index}")
    owner = index.partition("/")[0]
    if owner not in topology.users:
        raise ServerRefused(f"there is no user {owner}", hint=f"deployer user create {owner}")
    admit(index, fields, topology)
    session.login().put_index(index, session.api.codec.fit(index, fields))


def modify(session: Session, index: str, settings: Sequence[str], *, kind: str = "") -> tuple[str, ...]:
    """Change the given fields of ``index`` and return those that differed; ``kind``: required type, empty for any.

    Raises UsageError, ServerRefused.
    """
    topology = session.api.topology()
    node = require_index(index, topology, kind=kind)
    wanted = parse_settings(_with_files(settings), kind=str(node.fields.get("type", "")))
    fields = session.api.codec.fit(index, changed_fields(wanted, node))
    if fields:
        admit(index, fields, topology)
        session.login().patch_index(index, fields)
    return tuple(fields)


def _with_files(settings: Sequence[str]) -> list[str]:
    """KEY=VALUE arguments with the lines of the files that lists of requirements name. Raises UsageError."""
    from deployer.profile.load import lists

    found: list[str] = []
    for word in settings:
        key, _, value = word.partition("=")
        entries = rule_words(value) or [] if key in lists.KEYS else []
        if not any(map(lists.is_file, entries)):
            found.append(word)
            continue
        words: list[str] = []
        for entry in entries:
            lines, problems = lists.requirements(entry, key=key) if lists.is_file(entry) else ([entry], [])
            words += lines
            if problems:
                first, *others = problems
                raise UsageError(str(first), hint=first.hint, details=tuple(str(one) for one in others[:20]))
        found.append(f"{key}={','.join(words)}")
    return found


def admit_deletion(session: Session, index: str, *, name: str, kind: str = "") -> Topology:
    """Refuse to delete an index that another index or the clients use; ``name``: the deployment, empty for any devpi.

    Raises Refused, ServerRefused.
    """
    topology = session.api.topology()
    admit_removal(index, topology, kind=kind)
    applied = read_applied(name) if name else None
    if applied and f"/{index}/+simple" in applied.simple_url:
        raise Refused(
            f"{index} is the index of this deployment's clients",
            hint="deployer up --index USER/NAME",
        )
    return topology


def delete(session: Session, index: str, topology: Topology) -> None:
    """Delete ``index`` with all its files. Raises ServerRefused."""
    api = session.login()
    if topology.indexes[index].fields.get("volatile") is not True:
        api.patch_index(index, {"volatile": True})  # devpi deletes volatile indexes only; the user has confirmed
    api.delete_index(index)
