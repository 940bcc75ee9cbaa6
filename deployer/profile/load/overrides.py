"""Values that an option or a variable sets over a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployer.errors import ProfileError
from deployer.profile.problems import masked
from deployer.profile.strictyaml import KeyPath, parse_value
from deployer.profile.validation import ENTRIES


@dataclass(frozen=True)
class Override:
    """A value set over the profile: ``key`` is dotted (``network.port``), ``source`` is the option or variable."""

    key: str
    value: object
    source: str

    @property
    def path(self) -> KeyPath:
        """``key`` in steps. Names of users and indexes may hold dots: what follows the last one is a field, except
        that a mapping or nothing is given to a whole entry."""
        section, _, rest = self.key.partition(".")
        if section not in ENTRIES or not rest:
            return tuple(self.key.split("."))
        name, dot, last = rest.rpartition(".")
        known = last in ENTRIES[section].model_fields
        whole = self.value is None or isinstance(self.value, Mapping)
        return (section, name, last) if dot and (known or not whole) else (section, rest)


def parse_set(text: str) -> Override:
    """Parse ``--set key=value``; the value is YAML on one line. Raises ProfileError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    source = f"--set {masked(key)}"
    if not equals or not key:
        raise ProfileError(f"--set {masked(text)}: expected key=value", hint="for example --set network.port=4000")
    try:
        return Override(key, parse_value(value, name=source), source)
    except ValueError as error:
        raise ProfileError(f"{source}: {error}", hint="quote the value if it holds : { [ or #") from None
