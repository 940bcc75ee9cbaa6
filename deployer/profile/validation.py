"""Validate a tree of texts as a Profile, and turn pydantic's errors into problems with a cure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from deployer.profile.crosschecks import SourceOf, crosschecks
from deployer.profile.models import Index, Profile, User
from deployer.profile.problems import MAX_TOLD, Problem, did_you_mean, either, shown
from deployer.profile.strictyaml import KeyPath, dotted
from deployer.profile.types import FORMS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENTRIES: Mapping[str, type[BaseModel]] = {"indexes": Index, "users": User}
"""The keys with names as keys."""
HEAD = ("extends", "description")
"""The keys of a file that are not part of the profile."""
_BELOW = "expected 'key: value' lines below it"


def validate(
    tree: Mapping[str, object], source_of: SourceOf, *, partial: bool = False
) -> tuple[Profile | None, list[Problem]]:
    """Validate ``tree``: the profile (``None`` when invalid) and its problems, at most as many as are shown.

    ``partial``: an extended profile could not be read, so missing keys are not reported.
    """
    problems: list[Problem] = []
    profile = None
    try:
        profile = Profile.model_validate(tree)
    except ValidationError as error:
        found = error.errors(include_url=False)[: 4 * MAX_TOLD]
        problems += [told(one, source_of) for one in found if not (partial and one["type"] == "missing")]
    # These checks need no valid profile: all problems are reported at once.
    if not partial:
        problems += islice(crosschecks(tree, source_of), MAX_TOLD + 1)
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


def told(details: ErrorDetails, source_of: SourceOf) -> Problem:
    """Convert an error of pydantic."""
    # "[key]" and the members of a union are pydantic's own steps, not keys of the profile.
    loc: KeyPath = tuple(step for step in details["loc"] if step != "[key]")
    path = loc[:2] if loc[:2] == ("network", "bind") else loc
    cause, hint = _cause(details, path)
    return Problem(message=f"{dotted(path)}: {cause}", hint=hint, source=source_of(path))


def _cause(details: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    """The problem of the value at ``path``, and the cure or ''."""
    given, context = details.get("input"), details.get("ctx") or {}
    kind, key = details["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return "unknown key", _other_key(path)
    if kind == "missing":
        return "is missing", "type: mirror, stage or ordered" if key == "type" else ""
    if given is None:
        return "has no value", 'give it one ("" is an empty one), or remove the key'
    secret = path[:2] == ("image", "env") or not {"credentials", "secrets"}.isdisjoint(path)
    return _wanted(details, context, secret=secret), _cure(given, context, kind, key)


_EXPECTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "string_type": "a text",
}
"""What was expected, by pydantic's error type."""


def _wanted(details: ErrorDetails, context: Mapping[str, Any], *, secret: bool) -> str:
    given, kind = details.get("input"), details["type"]
    instead = "" if secret else f", not {shown(given)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}{instead}"
    match kind:
        case "literal_error":
            return f"expected {either(_allowed(context))}{instead}"
        case "int_parsing_size":
            return "is far too large"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}{instead}"
        case "less_than_equal":
            return f"must be at most {context['le']:.0f}{instead}"
        case "string_pattern_mismatch":
            # A value with a control character is a failed paste, which may hold a secret: it is not shown.
            paste = isinstance(given, str) and not given.isprintable()
            return f"expected {FORMS[context['pattern']]}{'' if paste else instead}"
        case "string_too_long":
            return f"longer than {context['max_length']} characters"
        case "model_type" | "dict_type" | "model_attributes_type":
            return _BELOW
        case _ if kind.startswith("ip_"):
            return f"expected an IP address{instead}"
        case "value_error":
            return f"{context['error']}{instead if isinstance(given, str) else ''}"
    return details["msg"][:1].lower() + details["msg"][1:]


def _cure(given: object, context: Mapping[str, Any], kind: str, key: str) -> str:
    if kind == "literal_error" and isinstance(given, str):
        return did_you_mean(given.strip(), _allowed(context))
    if kind in ("tuple_type", "list_type") and isinstance(given, str) and len(given) <= 80 and "@" not in given:
        return f"{key}: [{given}]"
    if kind == "model_type" and (key, given) == ("tls", "auto"):
        return "tls: {cert: auto}"
    if kind.startswith("ip_"):
        return "for example 127.0.0.1 or ::1"
    return ""


def _allowed(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _other_key(path: KeyPath) -> str:
    """Suggest a key: one of similar spelling here, or one of that name elsewhere."""
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
