"""Convert users and indexes between a profile and a server, both ways. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from deployer.devpi.fields import INDEX_FIELDS, LISTS, RULE_LISTS, Value, normal
from deployer.devpi.topology import ROOT, Node, Topology
from deployer.errors import UsageError
from deployer.plan.order import below
from deployer.protocol import GUARD_KEYS, rule_words
from deployer.secrets import BLANK, mask_url

if TYPE_CHECKING:
    from deployer.profile.models import Index, User

_COMMON = {**{key: key for key in ("title", "description", "custom_data", "volatile")}, "read": "acl_read"}
_MIRROR = {
    "url": "mirror_url",
    "cache_expiry": "mirror_cache_expiry",
    "project_list": "mirror_no_project_list",
    "core_metadata": "mirror_provides_core_metadata",
    "external_urls": "mirror_use_external_urls",
    "web_url": "mirror_web_url_fmt",
    "ignore_serial": "mirror_ignore_serial_header",
    **{key: key for key in GUARD_KEYS},
}
_STAGE = {
    name: name
    for name in ("bases", "acl_upload", "acl_toxresult_upload", "mirror_whitelist", "mirror_whitelist_inheritance")
}
_ORDERED = {name: name for name in ("bases", "acl_upload", "acl_toxresult_upload", "changed")}
KEYS: Mapping[str, Mapping[str, str]] = {
    "mirror": _COMMON | _MIRROR,
    "stage": _COMMON | _STAGE,
    "ordered": _COMMON | _ORDERED,
}
"""For each type of index: profile key to server field."""
_OPPOSITE = frozenset({"project_list"})
"""Keys that mean the opposite of their field."""
USER_KEYS = ("email", "title", "description", "custom_data")


def wanted(users: Mapping[str, User], indexes: Mapping[str, Index], *, default_mirror_url: str) -> Topology:
    """The topology that a profile declares, without fields that it does not own.

    ``default_mirror_url`` (may be empty) is given to a mirror without ``url`` when it is created; one that
    exists keeps what it has. The owner of an index is wanted too, whether it is listed or not.
    """
    nodes = {name: Node(fields=_user_fields(user)) for name, user in users.items()}
    for owner in (name.partition("/")[0] for name in indexes):
        if owner != ROOT:
            nodes.setdefault(owner, Node())
    return Topology(users=nodes, indexes={name: _node(name, indexes, default_mirror_url) for name in indexes})


def _user_fields(user: User) -> dict[str, Value]:
    # devpi removes a field with an empty value, so empty and not owned look the same.
    return {name: getattr(user, name) for name in USER_KEYS if getattr(user, name)}


def _node(index_name: str, indexes: Mapping[str, Index], default_url: str) -> Node:
    index = indexes[index_name]
    fields: dict[str, Value] = {"type": index.type}
    for key, name in KEYS[index.type].items():
        value = getattr(index, key)
        if value is not None and not (key == "url" and value == ""):
            fields[name] = INDEX_FIELDS[name](not value if key in _OPPOSITE else value)
    initial: dict[str, Value] = {}
    if index.type == "mirror":
        # The list of all names is tens of megabytes, and devpi-web asks for it as soon as the index exists:
        # switching it off later is too late.
        initial = {"mirror_no_project_list": True, **({"mirror_url": default_url} if default_url else {})}
    else:
        # devpi's own default lets anonymous clients write test results into the data directory.
        fields.setdefault("acl_toxresult_upload", ())
        # A release that was installed somewhere must not change.
        initial = {"volatile": False}
    if index.type == "stage":
        # An empty list keeps a public package from replacing an uploaded one of the same name.
        initial["mirror_whitelist"] = ()
    if index.type == "ordered":
        fields |= _ownership(index_name, indexes)
    return Node(fields=fields, initial={name: value for name, value in initial.items() if name not in fields})


def _ownership(name: str, indexes: Mapping[str, Index]) -> dict[str, Value]:
    """Which base owns which names of an ordered index, as ``base:pattern``; no upstream request is needed for that.

    A base also owns the names of its own bases.
    """
    bases = [base for base in indexes[name].bases or () if base in indexes]
    owners = {name: [indexes[name]], **{base: [indexes[one] for one in below(indexes, base)] for base in bases}}
    entries = (f"{base}:{normal(pattern)}" for base, found in owners.items() for one in found for pattern in one.owns)
    return {
        "owns": INDEX_FIELDS["owns"](tuple(entries)),
        "only_owned": INDEX_FIELDS["only_owned"](tuple(base for base in bases if indexes[base].only_owned)),
    }


def told(node: Node) -> dict[str, Any] | None:
    """An index as in a profile, without keys that concern several indexes; None for an unknown type."""
    keys = KEYS.get(str(node.fields["type"])) if "type" in node.fields else None
    if keys is None:
        return None
    said: dict[str, Any] = {"type": node.fields["type"]}
    for key, name in keys.items():
        if name in node.fields:
            value = node.fields[name]
            said[key] = not value if key in _OPPOSITE else list(value) if isinstance(value, tuple) else value
    if isinstance(url := said.get("url"), str):
        said["url"] = mask_url(url).replace(f"{BLANK}@", "")
    return said


def shown(node: Node) -> dict[str, Any]:
    """An index as in a profile, for output; for an unknown type, its known fields."""
    return told(node) or {
        name: list(value) if isinstance(value, tuple) else value for name, value in node.fields.items()
    }


def parse_settings(words: Sequence[str], *, kind: str) -> Index:
    """Parse ``KEY=VALUE`` words with profile keys as an index of the type ``kind``; lists have commas.

    Raises UsageError with all problems.
    """
    from pydantic import ValidationError

    from deployer.profile.models import Index
    from deployer.profile.validation import told

    # Who owns which names is a matter of all indexes together.
    fields = {key: name for key, name in KEYS.get(kind, _COMMON).items() if not (kind == "ordered" and key == "bases")}
    given: dict[str, object] = {"type": kind}
    for word in words:
        key, value = _setting(word, fields, kind=kind)
        given[key] = INDEX_FIELDS[fields[key]](value) if fields[key] in LISTS - RULE_LISTS else value
        if fields[key] in RULE_LISTS:
            given[key] = rule_words(value)
    try:
        return Index.model_validate(given)
    except ValidationError as error:
        first, *others = [told(one, lambda path: None) for one in error.errors()]
        raise UsageError(
            first.message.removeprefix(": "),
            details=tuple(one.message for one in others),
            hint=first.hint or "`deployer profiles reference` shows every key",
        ) from None


def _setting(word: str, known: Mapping[str, str], *, kind: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or key not in known:
        near = get_close_matches(key, known, n=1)
        raise UsageError(
            f"{mask_url(word)[:80]!r} is no KEY=VALUE with a key that can be set of an index of type {kind}",
            hint=f"did you mean {near[0]}=...?" if near else f"the keys are {', '.join(known)}; others are a profile's",
        )
    if (key == "read" or key.startswith("acl_")) and any(name.strip().startswith("@") for name in value.split(",")):
        raise UsageError(f"{word[:80]!r}: groups are a profile's", hint="name the users")
    return key, value


def new_index(name: str, index: Index) -> Node:
    """The fields of a new index from a command line."""
    return _node(name, {name: index}, "")


def changed_fields(index: Index, node: Node) -> dict[str, Value]:
    """The fields of ``index`` that differ from the server."""
    named = {KEYS[index.type][key] for key in index.model_fields_set - {"type"}}
    wanted = new_index("", index).fields
    return {name: wanted[name] for name in sorted(named & wanted.keys()) if node.fields.get(name) != wanted[name]}
