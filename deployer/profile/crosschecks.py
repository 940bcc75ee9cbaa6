"""Checks between keys of a profile, also made when other keys are invalid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from deployer.addresses import split
from deployer.profile.fallback import NoFallback, fallback
from deployer.profile.models import Profile
from deployer.profile.plugins import unfit
from deployer.profile.problems import Problem, Source, did_you_mean, either, shown
from deployer.profile.strictyaml import KeyPath, dotted
from deployer.profile.types import INDEX_NAME

SourceOf = Callable[[KeyPath], Source | None]
"""Returns the source of a path, or of the nearest one above it."""


def crosschecks(tree: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    """All unknown names, and circular bases."""
    server = _names(tree.get("server")) or {}
    yield from unfit(server.get("plugins"), web=server.get("web"), source=source_of(("server", "plugins")))
    indexes, users = _names(tree.get("indexes")), _names(tree.get("users"))
    if indexes is None or users is None:
        return
    yield from _unknown_bases(indexes, source_of)
    yield from _circles(indexes, source_of)
    yield from _unknown_owners(indexes, users, source_of)
    yield from _unknown_members(tree.get("groups"), users, source_of)
    yield from _unknown_groups(tree.get("groups"), indexes, source_of)
    yield from _unknown_of_jobs(tree.get("server"), indexes, users, source_of)
    yield from _on_demand(tree.get("cluster"), indexes, source_of)
    yield from _unknown_client_index(tree.get("clients"), indexes, source_of)
    yield from _tls_without_nginx(tree, source_of)
    yield from _unsafe_fallback(tree.get("clients"), indexes, source_of)
    yield from _ambiguous_path(tree.get("network"), indexes, users, source_of)


def _names(section: object) -> Mapping[str, object] | None:
    return section if isinstance(section, Mapping) else {} if section is None else None


def _is_index(name: object) -> bool:
    """Invalid names have their own problem already."""
    return isinstance(name, str) and re.search(INDEX_NAME, name) is not None


def _bases(index: object) -> list[tuple[int, str]]:
    bases = index.get("bases") if isinstance(index, Mapping) else None
    listed = enumerate(bases) if isinstance(bases, list | tuple) else ()
    return [(number, base) for number, base in listed if _is_index(base)]


def _unknown_bases(indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    for name, index in indexes.items():
        for number, base in _bases(index):
            if base not in indexes:
                path: KeyPath = ("indexes", name, "bases")
                yield Problem(
                    message=f"{dotted(path)}: unknown index {shown(base)}",
                    hint=did_you_mean(base, indexes) or "declare it under indexes:",
                    source=source_of((*path, number)),
                )


def _circles(indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter({name: [base for _, base in _bases(index)] for name, index in indexes.items()}).prepare()
    except CycleError as error:
        # graphlib names each index before the one that has it among its bases.
        circle = [str(name) for name in reversed(error.args[1])]
        path: KeyPath = ("indexes", circle[0], "bases")
        yield Problem(
            message=f"{dotted(path)}: circular bases: {' -> '.join(circle[:10])}{' -> …' * (len(circle) > 10)}",
            hint="remove one of them",
            source=source_of(path),
        )


def _unknown_owners(
    indexes: Mapping[str, object], users: Mapping[str, object], source_of: SourceOf
) -> Iterator[Problem]:
    known = {"root", *users}
    for name in filter(_is_index, indexes):
        owner = name.partition("/")[0]
        if owner not in known:
            path: KeyPath = ("indexes", name)
            yield Problem(
                message=f"{dotted(path)}: unknown user {shown(owner)}",
                hint=did_you_mean(owner, known) or f"users: {{{owner}: {{}}}}",
                source=source_of(path),
            )


def _unknown_of_jobs(
    server: object, indexes: Mapping[str, object], users: Mapping[str, object], source_of: SourceOf
) -> Iterator[Problem]:
    """Users and indexes of ``server.oidc``."""
    rules = server.get("oidc") if isinstance(server, Mapping) else None
    for number, rule in enumerate(rules) if isinstance(rules, list | tuple) else ():
        if not isinstance(rule, Mapping):
            continue
        path: KeyPath = ("server", "oidc", number)
        user, named = rule.get("user"), rule.get("indexes")
        if isinstance(user, str) and user not in users and user != "root":
            yield Problem(
                message=f"{dotted((*path, 'user'))}: unknown user {shown(user)}",
                hint=did_you_mean(user, users) or f"users: {{{user}: {{}}}}",
                source=source_of((*path, "user")),
            )
        for index in filter(_is_index, named if isinstance(named, list | tuple) else ()):
            if index not in indexes:
                yield Problem(
                    message=f"{dotted((*path, 'indexes'))}: unknown index {shown(index)}",
                    hint=did_you_mean(index, indexes) or "declare it under indexes:",
                    source=source_of((*path, "indexes")),
                )


def _on_demand(cluster: object, indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    """Indexes of ``cluster.files_on_demand``: uploads are always copied, so that an acknowledged one is never lost."""
    named = cluster.get("files_on_demand") if isinstance(cluster, Mapping) else None
    for number, name in enumerate(named if isinstance(named, list | tuple) else ()):
        path: KeyPath = ("cluster", "files_on_demand", number)
        if not _is_index(name):
            continue
        index = indexes.get(name)
        if name not in indexes:
            yield Problem(
                message=f"{dotted(path)}: unknown index {shown(name)}",
                hint=did_you_mean(name, indexes) or "declare it under indexes:",
                source=source_of(path),
            )
        elif isinstance(index, Mapping) and index.get("type") != "mirror":
            yield Problem(
                message=f"{dotted(path)}: {shown(name)} is no mirror, and each member has to have its uploads",
                hint="remove it: files of mirrors alone can come on demand",
                source=source_of(path),
            )


def _unknown_members(groups: object, users: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    for group, members in groups.items() if isinstance(groups, Mapping) else ():
        for number, member in enumerate(members if isinstance(members, list | tuple) else ()):
            if isinstance(member, str) and member not in {"root", *users}:
                yield Problem(
                    message=f"{dotted(('groups', group))}: unknown user {shown(member)}",
                    hint=did_you_mean(member, users) or f"users: {{{member}: {{}}}}",
                    source=source_of(("groups", group, number)),
                )


def _unknown_groups(groups: object, indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    """Permissions of undeclared groups."""
    declared = groups if isinstance(groups, Mapping) else {}
    for name, index in indexes.items():
        for key in ("read", "acl_upload", "acl_toxresult_upload"):
            listed = index.get(key) if isinstance(index, Mapping) else None
            for number, who in enumerate(listed if isinstance(listed, list | tuple) else ()):
                if isinstance(who, str) and who.startswith("@") and who[1:] not in declared:
                    yield Problem(
                        message=f"{dotted(('indexes', name, key))}: unknown group {shown(who)}",
                        hint=did_you_mean(who, [f"@{known}" for known in declared]) or f"groups: {{{who[1:]}: []}}",
                        source=source_of(("indexes", name, key, number)),
                    )


def _unknown_client_index(clients: object, indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    given = clients.get("index") if isinstance(clients, Mapping) else None
    wanted = Profile().clients.index if given is None else given
    if _is_index(wanted) and wanted not in indexes:
        listed = sorted(filter(_is_index, indexes))[:5]
        yield Problem(
            message=f"clients.index: unknown index {shown(wanted)}",
            hint=did_you_mean(str(wanted), indexes) or (f"for example {either(listed)}" if listed else ""),
            # Without a given index, the source is the one that removed the default.
            source=source_of(("clients", "index")) or source_of(("indexes", str(wanted))),
        )


def _tls_without_nginx(tree: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    network, server = tree.get("network"), tree.get("server")
    tls = network.get("tls") if isinstance(network, Mapping) else None
    on = isinstance(tls, Mapping) and bool(tls.get("cert"))
    if on and isinstance(server, Mapping) and server.get("front") == "python":
        yield Problem(
            message="network.tls: nginx answers HTTPS, and server.front is python",
            hint="server.front: auto, or remove network.tls",
            source=source_of(("network", "tls", "cert")),
        )


def _ambiguous_path(
    network: object, indexes: Mapping[str, object], users: Mapping[str, object], source_of: SourceOf
) -> Iterator[Problem]:
    """A path prefix that could be the address of a user or an index: a proxy may take it away, or not."""
    url = network.get("outside_url") if isinstance(network, Mapping) else None
    parts = split(url) if isinstance(url, str) else None
    path = parts.path.strip("/") if parts else ""
    if path and path in {"root", *users, *indexes, *(str(name).partition("/")[0] for name in indexes)}:
        yield Problem(
            message=f"network.outside_url: its path /{path} is also the address of {shown(path)} on this server",
            hint="choose another path",
            source=source_of(("network", "outside_url")),
        )


def _unsafe_fallback(clients: object, indexes: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    if not isinstance(clients, Mapping) or clients.get("fallback") is not True:
        return
    index = clients.get("index", Profile().clients.index)
    if not isinstance(index, str) or index not in indexes:
        return
    try:
        fallback(indexes, index)
    except NoFallback as no:
        yield Problem(message=f"clients.fallback: {no}", hint=no.hint, source=source_of(("clients", "fallback")))
