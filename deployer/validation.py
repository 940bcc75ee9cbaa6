"""From a tree of texts to a checked Profile, and from what pydantic found to what the operator can act on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from deployer.problems import MAX_TOLD, Problem, Source, did_you_mean, either, shown
from deployer.profile import FORMS, INDEX_NAME, Index, Profile, User
from deployer.strictyaml import KeyPath, dotted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SourceOf = Callable[[KeyPath], Source | None]
ENTRIES: Mapping[str, type[BaseModel]] = {"indexes": Index, "users": User}
"""The keys whose own keys are names."""
HEAD = ("extends", "description")
"""The keys of a file that are about the file."""
_BELOW = "expected 'key: value' lines below it"


def validate(
    tree: Mapping[str, object], source_of: SourceOf, *, partial: bool = False
) -> tuple[Profile | None, list[Problem]]:
    """The profile that ``tree`` is (``None`` if it is none), and all that is wrong with it, up to what can be told:
    suggestions for thousands of unknown names would cost minutes and help nobody.

    ``partial``: something that the profile builds on could not be read, so what is absent is no problem.
    """
    problems: list[Problem] = []
    profile = None
    try:
        profile = Profile.model_validate(tree)
    except ValidationError as error:
        found = error.errors(include_url=False)[: 4 * MAX_TOLD]
        problems += [_told(one, source_of) for one in found if not (partial and one["type"] == "missing")]
    # What can be said without a valid profile is said all the same, so that nobody mends one line at a time.
    if not partial:
        problems += islice(_crosschecks(tree, source_of), MAX_TOLD + 1)
    return profile, problems


def section_model(path: KeyPath) -> type[BaseModel] | None:
    """The model whose fields are the keys at ``path``; ``None`` where any name will do, or nothing is below."""
    match path:
        case ():
            return Profile
        case (str() as section,) if section in Profile.model_fields:
            model = Profile.model_fields[section].annotation
            return model if isinstance(model, type) and issubclass(model, BaseModel) else None
        case (str() as section, _):
            return ENTRIES.get(section)
        case _:
            return None


def _told(details: ErrorDetails, source_of: SourceOf) -> Problem:
    # "[key]" and the members of a union are pydantic's own steps, not the operator's.
    loc: KeyPath = tuple(step for step in details["loc"] if step != "[key]")
    path = loc[:2] if loc[:2] == ("network", "bind") else loc
    cause, hint = _cause(details, path)
    return Problem(message=f"{dotted(path)}: {cause}", hint=hint, source=source_of(path))


def _cause(details: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    """What is wrong with the value at ``path``, and the cure or ''."""
    given, context = details.get("input"), details.get("ctx") or {}
    kind, key = details["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return "unknown key", _other_key(path)
    if kind == "missing":
        return "is missing", "type: mirror, stage or ordered" if key == "type" else ""
    if given is None:
        return "has no value", 'give it one ("" is an empty one), or take the key away'
    return _wanted(details, context, secret=path[:2] == ("image", "env") or "credentials" in path), _cure(
        given, context, kind, key
    )


def _wanted(details: ErrorDetails, context: Mapping[str, Any], *, secret: bool) -> str:
    given = details.get("input")
    instead = "" if secret else f", not {shown(given)}"
    match details["type"]:
        case "literal_error":
            return f"expected {either(_allowed(context))}{instead}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"expected a whole number{instead}"
        case "int_parsing_size":
            return "is far too large"
        case "float_parsing" | "float_type" | "finite_number":
            return f"expected a number{instead}"
        case "bool_parsing" | "bool_type":
            return f"expected true or false{instead}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}{instead}"
        case "less_than_equal":
            return f"must be at most {context['le']:.0f}{instead}"
        case "string_pattern_mismatch":
            # What holds a control character is a paste that went wrong, of who knows what: it is not shown.
            paste = isinstance(given, str) and not given.isprintable()
            return f"expected {FORMS[context['pattern']]}{'' if paste else instead}"
        case "string_too_long":
            return f"longer than {context['max_length']} characters"
        case "string_type":
            return f"expected a text{instead}"
        case "tuple_type" | "list_type":
            return f"expected a list{instead}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return _BELOW
        case kind if kind.startswith("ip_"):
            return f"expected an IP address{instead}"
        case "value_error" if isinstance(given, str):
            return f"{context['error']}{instead}"
        case "value_error":
            return str(context["error"])
        case _:
            message = details["msg"]
            return message[:1].lower() + message[1:]


def _cure(given: object, context: Mapping[str, Any], kind: str, key: str) -> str:
    if kind == "literal_error" and isinstance(given, str):
        return did_you_mean(given.strip(), _allowed(context))
    if kind in ("tuple_type", "list_type") and isinstance(given, str) and len(given) <= 80 and "@" not in given:
        return f"{key}: [{given}]"
    if kind.startswith("ip_"):
        return "for example 127.0.0.1 or ::1"
    return ""


def _allowed(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _other_key(path: KeyPath) -> str:
    """The key that was meant: one that is spelt alike here, or one of that name elsewhere."""
    *above, word = map(str, path)
    model = section_model(tuple(above))
    if word in HEAD:
        return "choose the profile with --profile" if word == "extends" else ""
    known = (*model.model_fields, *(() if above else HEAD)) if model else ()
    if near := did_you_mean(word, known):
        return near
    elsewhere = [
        f"'{section}.{word}'"
        for section in Profile.model_fields
        if [section] != above and word in getattr(section_model((section,)), "model_fields", ())
    ]
    return f"did you mean {either(elsewhere)}?" if elsewhere else ""


# What two places of the text must agree on; tolerant of what else is wrong.


def _crosschecks(tree: Mapping[str, object], source_of: SourceOf) -> Iterator[Problem]:
    indexes, users = _names(tree.get("indexes")), _names(tree.get("users"))
    if indexes is None or users is None:
        return
    yield from _unknown_bases(indexes, source_of)
    yield from _circles(indexes, source_of)
    yield from _unknown_owners(indexes, users, source_of)
    yield from _unknown_groups(tree.get("groups"), indexes, users, source_of)
    yield from _unknown_client_index(tree.get("clients"), indexes, source_of)


def _names(section: object) -> Mapping[str, object] | None:
    return section if isinstance(section, Mapping) else {} if section is None else None


def _is_index(name: object) -> bool:
    """Other names have been told as such already."""
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
            message=f"{dotted(path)}: a circle: {' -> '.join(circle[:10])}{' -> …' * (len(circle) > 10)}",
            hint="take one of them away",
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


def _unknown_groups(
    groups: object, indexes: Mapping[str, object], users: Mapping[str, object], source_of: SourceOf
) -> Iterator[Problem]:
    """Members that are no users, and rights of groups that nobody declared."""
    declared = groups if isinstance(groups, Mapping) else {}
    for group, members in declared.items():
        for number, member in enumerate(members if isinstance(members, list | tuple) else ()):
            if isinstance(member, str) and member not in {"root", *users}:
                yield Problem(
                    message=f"{dotted(('groups', group))}: unknown user {shown(member)}",
                    hint=did_you_mean(member, users) or f"users: {{{member}: {{}}}}",
                    source=source_of(("groups", group, number)),
                )
    for name, index in indexes.items():
        for key in ("acl_upload", "acl_toxresult_upload"):
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
            # Nobody said which: then who took the default away.
            source=source_of(("clients", "index")) or source_of(("indexes", str(wanted))),
        )
