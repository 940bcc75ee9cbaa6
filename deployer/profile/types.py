"""Types of single profile values: patterns, and their descriptions."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from deployer.addresses import split

# No control characters: they are of no use in these values and allow injections.
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
# distribution/reference's grammar, loosened in its order, never starting with a dash.
_IMAGE_REF = r"^$|^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}$"
# devpi allows more; what is refused here would need quoting in an address.
_USER_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"
INDEX_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*/[a-zA-Z0-9][a-zA-Z0-9_.-]*$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_SIZE = r"^$|^[1-9][0-9]*[bkmg]?$"
_MEMORY = r"^auto$|" + _SIZE
_URL = r"^$|^https?://[^\x00-\x20\x7f]+$"
_HOST_NAME = r"^(\*|[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?)$"
_DIGEST = r"^$|^sha256:[0-9a-f]{64}$"
# A comma would end the path in an engine's mount option.
_INSIDE_PATH = r"^/[^\x00-\x1f\x7f,]*$"
_IDS = r"^$|^[0-9]+:[0-9]+$"
_ADDRESS = r"^$|^[0-9]{1,3}(\.[0-9]{1,3}){3}:[1-9][0-9]{0,4}$"
_ORIGIN = r"^https?://(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?)(:[1-9][0-9]{0,4})?$"
_SIGNAL = r"^SIG[A-Z0-9]+$"
# A reference to a secret, never the secret. "command:" is split as a shell would, and no shell runs it.
_REFERENCE = (
    r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[/~][^\x00-\x1f\x7f]*|command:[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*"
    r"|keyring:[^/\x00-\x1f\x7f]+/[^\x00-\x1f\x7f]+)$"
)
# PEP 503's names in any spelling, with * for any text.
_PROJECT_PATTERN = r"^[A-Za-z0-9*]([A-Za-z0-9._*-]*[A-Za-z0-9*])?$"
_READER = r"^(@?[A-Za-z0-9][A-Za-z0-9._-]*|:[A-Za-z0-9][A-Za-z0-9._ -]*:?)$"
_PYTHON = r"^3\.[0-9]{1,2}(\.[0-9]{1,3})?$"
# A pattern of names, and a set of versions (PEP 440); packaging checks the versions.
_VERSIONS = r"[<>=!~]=?=?\s*[A-Za-z0-9.*+!_-]+\s*"
_RULE = rf"^[A-Za-z0-9*]([A-Za-z0-9._*-]*[A-Za-z0-9*])?\s*({_VERSIONS}(,\s*{_VERSIONS})*)?$"
# An exact version of a normal name: what is installed must not depend on the day.
_PIN = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
_OPTION = r"^[a-z][a-z0-9-]*$"
_SPAN = r"^(0|[1-9][0-9]{0,4}[smhdw])$"
_CLAIM = r"^[A-Za-z_][A-Za-z0-9_.:/-]{0,199}$"
_RESTART = r"^(no|always|unless-stopped|on-failure(:[0-9]+)?)$"

FORMS: dict[str, str] = {
    _PRINTABLE: "a text without control characters",
    _IMAGE_REF: "an image: letters, digits and . _ / : @ -, starting with a letter or digit",
    _USER_NAME: "a name: letters, digits and . _ -, starting with a letter or digit",
    INDEX_NAME: "user/name: letters, digits and . _ -",
    _ENV_NAME: "a variable's name: letters, digits and _",
    _SIZE: "a whole number with a unit b, k, m or g, like 256m",
    _MEMORY: "auto, or a whole number with a unit b, k, m or g, like 512m",
    _URL: "an address that starts with http:// or https:// and has no spaces",
    _HOST_NAME: "a host name without a port: letters, digits and . _ -; or * for any",
    _DIGEST: "sha256: and 64 hexadecimal digits",
    _INSIDE_PATH: "an absolute path without a comma",
    _IDS: "uid:gid as numbers, like 1000:1000",
    _ADDRESS: "an IPv4 address and a port, like 127.0.0.1:9141",
    _ORIGIN: "http:// or https:// and a host, with a port or without, and no path",
    _SIGNAL: "a signal's name, like SIGTERM",
    _REFERENCE: "a reference to a secret: env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER",
    _PROJECT_PATTERN: "a project's name, in which * stands for any text, like acme-*",
    _READER: "a user, @GROUP of the profile, :AUTHENTICATED:, :ANONYMOUS:, or :GROUP of a login plugin",
    _PYTHON: "a version of Python, like 3.11",
    _RULE: "a requirement: a project's name with * for any text, and versions if not all, like urllib3>=2.6.1",
    _PIN: "a plugin with its exact version: NAME==VERSION, like devpi-ldap==2.2.0",
    _OPTION: "an option of devpi-server without its dashes, like ldap-config",
    _SPAN: "a time with a unit s, m, h, d or w, like 7d; 0 = none",
    _CLAIM: "the name of a claim, like repository",
    _RESTART: "no, always, unless-stopped, on-failure or on-failure:5",
}
"""The description of each pattern, for messages."""

Text = Annotated[str, StringConstraints(pattern=_PRINTABLE, max_length=4096)]
ImageRef = Annotated[str, StringConstraints(pattern=_IMAGE_REF)]
UserName = Annotated[str, StringConstraints(pattern=_USER_NAME, max_length=64)]
IndexName = Annotated[str, StringConstraints(pattern=INDEX_NAME, max_length=129)]
EnvName = Annotated[str, StringConstraints(pattern=_ENV_NAME)]
Size = Annotated[str, StringConstraints(pattern=_SIZE, max_length=20)]
Memory = Annotated[str, StringConstraints(pattern=_MEMORY, max_length=20)]
SecretRef = Annotated[str, StringConstraints(pattern=_REFERENCE, max_length=4096)]
ProjectPattern = Annotated[str, StringConstraints(pattern=_PROJECT_PATTERN, max_length=200)]
Pin = Annotated[str, StringConstraints(pattern=_PIN, max_length=200)]
OptionName = Annotated[str, StringConstraints(pattern=_OPTION, max_length=80)]
Span = Annotated[str, StringConstraints(pattern=_SPAN)]
ClaimName = Annotated[str, StringConstraints(pattern=_CLAIM)]
HostName = Annotated[str, StringConstraints(pattern=_HOST_NAME, max_length=253)]
PythonVersion = Annotated[str, StringConstraints(pattern=_PYTHON)]
Digest = Annotated[str, StringConstraints(pattern=_DIGEST)]
InsidePath = Annotated[str, StringConstraints(pattern=_INSIDE_PATH, max_length=4096)]
Ids = Annotated[str, StringConstraints(pattern=_IDS)]
Address = Annotated[str, StringConstraints(pattern=_ADDRESS)]
SignalName = Annotated[str, StringConstraints(pattern=_SIGNAL)]
RestartPolicy = Annotated[str, StringConstraints(pattern=_RESTART)]


def _address(value: str) -> str:
    """Check host and port of an address, which a pattern can't; an empty one is valid here."""
    if value and split(value) is None:
        raise ValueError("expected an address with a host, and with a port below 65536 if it has one")
    return value


def _outside(value: str) -> str:
    """Check the address that a proxy gives to clients; without a slash at its end."""
    parts = urlsplit(value)
    if parts.query or parts.fragment or "@" in parts.netloc or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", parts.path):
        raise ValueError("expected https://HOST or https://HOST/PATH, with a path of letters, digits and . _ ~ -")
    return value.rstrip("/")


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"expected an IP address or a network like 10.0.0.0/8: {error}") from None


Url = Annotated[str, StringConstraints(pattern=_URL, max_length=2048), AfterValidator(_address)]
NetworkOf = Annotated[str, StringConstraints(max_length=50), AfterValidator(_network)]
OutsideUrl = Annotated[Url, AfterValidator(_outside)]
Origin = Annotated[str, StringConstraints(pattern=_ORIGIN, max_length=300), AfterValidator(_address)]


def _rule(value: str) -> str:
    """Check the versions of a requirement."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    versions = re.sub(r"^[^<>=!~]*", "", value)
    try:
        SpecifierSet(versions)
    except InvalidSpecifier:
        raise ValueError(f"expected a set of versions such as >=2.6.1 after the name, not {versions[:60]}") from None
    return value


Rule = Annotated[str, StringConstraints(pattern=_RULE, max_length=300), AfterValidator(_rule)]


def _reader(value: str) -> str:
    """Spell the two special readers as devpi does."""
    special = {"authenticated": ":AUTHENTICATED:", "anonymous": ":ANONYMOUS:"}
    return special.get(value.strip(":").lower(), value) if value.startswith(":") else value


Reader = Annotated[str, StringConstraints(pattern=_READER, max_length=129), AfterValidator(_reader)]


def _date(value: str) -> str:
    """Check a date, with a time or without."""
    from datetime import datetime

    try:
        datetime.fromisoformat(value or "2026-01-01")
    except ValueError:
        raise ValueError(f"expected a date like 2026-01-01 or 2026-01-01T12:00:00Z, not {value[:40]}") from None
    return value


Date = Annotated[str, StringConstraints(pattern=_PRINTABLE, max_length=40), AfterValidator(_date)]


def _decimal(value: object) -> object:
    """Accept only digits: pydantic would also accept ``1_000`` and ``' 7 '``, which are not numbers in YAML 1.2."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("expected a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_decimal)]

ClientName = Literal["pip", "uv", "poetry", "pdm"]
"""The clients with a file that ``up`` can write: those of ``clients/registry.py``."""

MAX_SECONDS = 2**31 - 1
"""The largest number of seconds: a C int, as operating systems take it."""
