"""The fields of users and indexes, and their spelling in each version of devpi-server. Pure data.

Field names are those of devpi-server 6 (its model.py and mirror.py; model/local.py and model/remote.py in 7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployer.errors import ProfileError
from deployer.protocol import rule_words

Value = str | int | bool | tuple[str, ...]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected a number, got {value!r}")
    return int(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "false": False, "no": False}  # what devpi takes
    try:
        return known[_text(value).lower()]
    except KeyError:
        raise ValueError(f"expected true or false, got {value!r}") from None


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):  # devpi takes and old data may hold "a,b"
        return tuple(part for part in (word.strip() for word in value.split(",")) if part)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"expected a list of names, got {value!r}")
    return tuple(_text(item) for item in value)


def _acl(value: object) -> tuple[str, ...]:
    special = {":ANONYMOUS:", ":AUTHENTICATED:"}  # devpi stores these two in capitals, the order has no meaning
    return tuple(sorted({name.upper() if name.upper() in special else name for name in _names(value)}))


def _projects(value: object) -> tuple[str, ...]:
    # PEP 503's normal form, which devpi stores; "*" stands for every project.
    return tuple(sorted({normal(name) for name in _names(value)}))


def normal(name: str) -> str:
    """The PEP 503 normal form of a project's name; a pattern keeps its ``*``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _entries(value: object) -> tuple[str, ...]:
    return tuple(sorted(set(_names(value))))


def _rules(value: object) -> tuple[str, ...]:
    # The form in which the server stores requirements.
    words = rule_words(value)
    if words is None:
        raise ValueError(f"expected a list of requirements, got {value!r}")
    parts = (re.fullmatch(r"([^<>=!~\s]*)\s*(.*)", word, re.DOTALL) for word in words)
    return tuple(sorted({normal(part[1]) + re.sub(r"\s+", "", part[2]) for part in parts if part}))


INDEX_FIELDS: Mapping[str, Callable[[object], Value]] = {
    "type": _text,
    "title": _text,
    "description": _text,
    "custom_data": _text,
    "volatile": _flag,
    "mirror_url": _text,
    "mirror_cache_expiry": _number,
    "mirror_no_project_list": _flag,
    "mirror_provides_core_metadata": _flag,
    "mirror_use_external_urls": _flag,
    "mirror_web_url_fmt": _text,
    "mirror_ignore_serial_header": _flag,
    "bases": _names,
    "acl_upload": _acl,
    "acl_toxresult_upload": _acl,
    # Who may read, from our own plugin.
    "acl_read": _acl,
    "mirror_whitelist": _projects,
    "mirror_whitelist_inheritance": _text,
    # Rules of a mirror, from our own plugin.
    "min_age": _text,
    "min_age_exempt": _rules,
    "before": _text,
    "unknown_age": _text,
    "allow": _rules,
    "deny": _rules,
    "changed": _text,
    # Of the type `ordered`, from our own plugin.
    "owns": _entries,
    "only_owned": _entries,
}
"""Every field that a profile can own, with the form in which devpi stores its values."""
RULE_LISTS = frozenset(name for name, form in INDEX_FIELDS.items() if form is _rules)
"""Fields with several requirements, which may have commas themselves."""
LISTS = RULE_LISTS | {name for name, form in INDEX_FIELDS.items() if form in (_names, _acl, _projects, _entries)}
"""Fields with several names."""
USER_FIELDS: Mapping[str, Callable[[object], Value]] = {
    "email": _text,
    "title": _text,
    "description": _text,
    "custom_data": _text,
}


def read(known: Mapping[str, Callable[[object], Value]], raw: Mapping[str, object]) -> dict[str, Value]:
    """The ``known`` fields of ``raw``, normalised. Raises ValueError for a value of the wrong type.

    Other programs may keep anything in ``custom_data``; a profile can only own a text there.
    """
    return {
        name: form(raw[name])
        for name, form in known.items()
        if name in raw and not (name == "custom_data" and not isinstance(raw[name], str))
    }


@dataclass(frozen=True, kw_only=True)
class IndexCodec:
    """How one version of devpi-server spells index fields and index types; what is left out is as in version 6.

    ``values``: all values of a field that are spelt differently, ours to theirs. ``missing``: fields that this version
    does not have, with the value that it behaves like.
    """

    major: int = 6
    fields: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[Value, Value]] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()

    def fit(self, index: str, fields: Mapping[str, Value]) -> dict[str, Value]:
        """``fields`` without those that this server does not have. Raises ProfileError for an unsupported value."""
        for name, value in fields.items():
            if name in self.values and value not in self.values[name]:
                known = " or ".join(_spelt(one) for one in self.values[name])
                raise ProfileError(
                    f"index {index}: devpi-server {self.major} has no {name} {_spelt(value)}, only {known}",
                    hint=f"set indexes.{index}.{name} to one of these",
                )
        return {name: value for name, value in fields.items() if name not in self.missing}

    def encode(self, fields: Mapping[str, Value]) -> dict[str, object]:
        """Our fields as a JSON object for this server."""
        return {self.fields.get(name, name): _json(self._value(name, value)) for name, value in fields.items()}

    def decode(self, raw: Mapping[str, object]) -> dict[str, Value]:
        """The fields of a server's index that a profile can own, normalised.

        Raises ValueError when a value is not of its field's kind.
        """
        ours = {theirs: name for name, theirs in self.fields.items()}
        known = {ours.get(key, key): value for key, value in raw.items()}
        for name, spelling in self.values.items():
            if name in known:
                meant = {_json_key(theirs): value for value, theirs in spelling.items()}
                known[name] = meant.get(_json_key(known[name]), known[name])
        fields = read(INDEX_FIELDS, known)
        types = {theirs: name for name, theirs in self.types.items()}
        if isinstance(kind := fields.get("type"), str):
            fields["type"] = types.get(kind, kind)
        return fields

    def _value(self, name: str, value: Value) -> Value:
        if name == "type" and isinstance(value, str):
            return self.types.get(value, value)
        return self.values.get(name, {}).get(value, value)


def _json(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _json_key(value: object) -> str:
    return repr(list(value) if isinstance(value, list | tuple) else value)


def _spelt(value: Value) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


DEVPI_6 = IndexCodec()
DEVPI_7 = IndexCodec(
    major=7,
    types={"mirror": "remote", "stage": "local"},
    fields={
        "mirror_url": "remote_url",
        "mirror_cache_expiry": "remote_refresh_delay",
        "mirror_no_project_list": "remote_no_project_list",
        "mirror_use_external_urls": "remote_use_external_urls",
        "mirror_web_url_fmt": "remote_web_url_fmt",
        "mirror_whitelist": "project_inheritance_rules",
        "mirror_whitelist_inheritance": "trust_inheritance_rules_from",
    },
    # As its own import translates data of version 6. Single names are now set for each project.
    values={
        "mirror_whitelist": {(): ("block type:remote if local_exists",), ("*",): ("allow all",)},
        "mirror_whitelist_inheritance": {"intersection": "none", "union": "type:not remote"},
    },
    missing=frozenset({"mirror_provides_core_metadata", "mirror_ignore_serial_header"}),
)
CODECS: Mapping[int, IndexCodec] = {codec.major: codec for codec in (DEVPI_6, DEVPI_7)}


def codec_of(server_version: str) -> IndexCodec | None:
    """The codec of devpi-server ``server_version``; ``None`` for an unknown or unsupported version."""
    major = server_version.partition(".")[0]
    return CODECS.get(int(major)) if major.isdigit() else None


def codec_of_index(raw: Mapping[str, object]) -> IndexCodec:
    """The codec of a server that returned ``raw``. The names of two versions never mean different things."""
    named = raw.get("type")
    later = isinstance(named, str) and named in DEVPI_7.types.values()
    return DEVPI_7 if later or raw.keys() & set(DEVPI_7.fields.values()) else DEVPI_6
