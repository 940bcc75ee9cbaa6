"""The rules of a mirror about what comes in: a file is allowed, or held back for a reason, perhaps until a moment.

Pure: no clock, no disk. Rules are frozen data, read from the attributes of an index. What can't be decided (no upload
time, no version in the name of a file) is decided for the safe side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from io import BytesIO
from typing import Any, Self

import msgspec
from msgspec import Struct
from msgspec.json import Decoder
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name, canonicalize_version
from packaging.version import InvalidVersion, Version

from deployer.protocol import GUARD_KEYS, parse_span, rule_words
from deployer.server.guard.first_seen import differs
from deployer.server.json_text import loads

File = Mapping[str, Any]

KEYS = GUARD_KEYS
"""The attributes of an index that are rules."""
LISTS = ("min_age_exempt", "allow", "deny")
_TEXTS = {"unknown_age": ("refuse", "allow"), "changed": ("refuse", "allow")}
_NAME = re.compile(r"[a-z0-9*](?:[a-z0-9*-]*[a-z0-9*])?")
_EXTENSIONS = re.compile(r"\.(?:tar\.[a-z0-9]+|[a-z0-9]+)$", re.IGNORECASE)
_ZULU = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?Z\Z", re.ASCII
)


class InvalidRule(ValueError):
    """A rule that is not understood; the message says which value, and what is expected."""


@dataclass(frozen=True)
class Held:
    """Why a file is held back.

    ``rule``: the key of the rule. ``until``: seconds since the epoch; None for as long as the rule stands. ``text``:
    the reason, and where the file is too young the end of it, after the time at which it was ``uploaded``.
    """

    rule: str
    text: str
    until: float | None = None
    uploaded: float | None = None

    @property
    def reason(self) -> str:
        """Why. It is put together when somebody reads it: a page may have 20,000 files that are held back."""
        return self.text if self.uploaded is None else f"it was uploaded {iso(self.uploaded)}, {self.text}"

    @property
    def date(self) -> str | None:
        """``until`` as ISO 8601, rounded up to a second."""
        return None if self.until is None else iso(-(-self.until // 1))

    def line(self, filename: str, index: str) -> str:
        """One line for whoever asked for the file."""
        until = f" until {self.date}" if self.until is not None else ""
        return f"{filename} is held back{until} by {self.rule} of {index}: {self.reason}"


def iso(seconds: float) -> str:
    """A moment as ISO 8601, UTC, in whole seconds; clamped to the years 1 to 9999."""
    seconds = min(max(seconds, -62_135_596_800.0), 253_402_300_799.0)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: object) -> float | None:
    """An upload time (ISO 8601, UTC without a zone) as seconds since the epoch; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Wanted:
    """A requirement of a rule: a pattern of names, and a set of versions; empty for every version."""

    pattern: str
    versions: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read ``NAME``, ``acme-*``, ``urllib3>=1.26,<2``. Raises InvalidRule."""
        found = re.fullmatch(r"\s*([A-Za-z0-9._*-]+)\s*([<>=!~].*?)?\s*", text)
        name = "" if found is None else re.sub(r"[-_.]+", "-", found[1]).lower()
        if found is None or not _NAME.fullmatch(name):
            raise InvalidRule(f"{text[:100]!r} is no requirement such as acme-* or urllib3>=2.6.1")
        versions = re.sub(r"\s+", "", found[2] or "")
        try:
            SpecifierSet(versions)
        except InvalidSpecifier:
            raise InvalidRule(f"{text[:100]!r}: {versions[:50]!r} is no set of versions such as >=2.6.1") from None
        return cls(name, versions)

    def __str__(self) -> str:
        return f"{self.pattern}{self.versions}"

    def has(self, version: str | None, *, unsure: bool) -> bool:
        """Whether it is about this version. ``unsure``: the answer for a version that is none."""
        if not self.versions:
            return True
        found = _contains(self.versions, version or "")
        return unsure if found is None else found


@lru_cache(maxsize=20_000)
def _contains(versions: str, version: str) -> bool | None:
    parsed = parsed_version(version)
    return None if parsed is None else _specifiers(versions).contains(parsed, prereleases=True)


@lru_cache(maxsize=4096)
def _specifiers(versions: str) -> SpecifierSet:
    return SpecifierSet(versions)


@lru_cache(maxsize=20_000)
def parsed_version(text: str) -> Version | None:
    """A version by PEP 440; None for any other text."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


class Matcher:
    """Many requirements, found by the name of a project."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._exact: dict[str, list[Wanted]] = {}
        self._patterns: list[tuple[re.Pattern[str], Wanted]] = []
        for wanted in map(Wanted.of, texts):
            if "*" in wanted.pattern:
                expression = ".*".join(map(re.escape, wanted.pattern.split("*")))
                self._patterns.append((re.compile(expression), wanted))
            else:
                self._exact.setdefault(wanted.pattern, []).append(wanted)

    def about(self, project: str) -> tuple[Wanted, ...]:
        """The requirements about a project (normalised name)."""
        found = self._exact.get(project, [])
        return (*found, *(wanted for pattern, wanted in self._patterns if pattern.fullmatch(project)))


@dataclass(frozen=True)
class Malicious:
    """Releases that are known to be malicious. ``names``: by project, the advisory of each version; ``*`` for all.

    Two lists with the same ``digest`` are the same.
    """

    digest: str = ""
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)

    def advisory(self, project: str, version: str | None) -> str | None:
        """The advisory that names a release; None without."""
        versions = self.names.get(project)
        if versions is None:
            return None
        named = None if version is None else versions.get(version) or versions.get(canonical(version))
        return named or versions.get("*")


NONE = Malicious()


def canonical(version: str) -> str:
    """A version in the form in which a list of malicious releases has it."""
    return str(canonicalize_version(version))


@dataclass(frozen=True)
class Rules:
    """What a mirror lets in. ``min_age``: seconds. ``before``: seconds since the epoch. ``unknown_age``, ``changed``:
    whether files without an upload time, and with another hash than at first, are refused."""

    min_age: float = 0.0
    min_age_exempt: tuple[str, ...] = ()
    before: float | None = None
    unknown_age: bool = True
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    changed: bool = True
    malicious: Malicious = NONE
    age: str = ""  # min_age as written

    @classmethod
    def of(cls, config: Mapping[str, Any], malicious: Malicious = NONE) -> Self:
        """The rules among the attributes of an index. Raises InvalidRule."""
        given = {key: checked(key, config[key]) for key in KEYS if config.get(key)}
        return cls(
            min_age=parse_span(given.get("min_age", "0")),
            min_age_exempt=tuple(given.get("min_age_exempt", ())),
            before=_before(given["before"]) if "before" in given else None,
            unknown_age=given.get("unknown_age") != "allow",
            allow=tuple(given.get("allow", ())),
            deny=tuple(given.get("deny", ())),
            changed=given.get("changed") != "allow",
            malicious=malicious,
            age=given.get("min_age", ""),
        )

    @property
    def any(self) -> bool:
        """Whether there is a rule at all: without one, files that have changed are let in, too."""
        return bool(self.min_age or self.before is not None or self.allow or self.deny or self.malicious.names)

    @cached_property
    def _matchers(self) -> tuple[Matcher, Matcher, Matcher]:
        return Matcher(self.min_age_exempt), Matcher(self.allow), Matcher(self.deny)

    def about(self, project: str, now: float) -> Verdicts:
        """The verdicts on files of one project (normalised name), as of ``now``."""
        exempt, allow, deny = (matcher.about(project) for matcher in self._matchers)
        return Verdicts(self, project, now, exempt, allow, deny)


def nothing(config: Mapping[str, Any]) -> Rules:
    """The rules for attributes that are not understood: nothing comes in."""
    return Rules(deny=("*",), age=str(sorted(set(config) & set(KEYS))))


def _before(text: str) -> float:
    found = moment(text)
    if found is None:
        raise InvalidRule(f"{text[:50]!r} is no date such as 2026-01-01")
    return found


def checked(key: str, value: object) -> Any:
    """The value of an attribute in the form in which it is stored. Raises InvalidRule."""
    if key in LISTS:
        words = rule_words(value)
        if words is None:
            raise InvalidRule(f"{key}: expected a list of requirements")
        return sorted({str(Wanted.of(word)) for word in words})
    if not isinstance(value, str):
        raise InvalidRule(f"{key}: expected a text, got {value!r:.50}")
    if key in _TEXTS and value not in ("", *_TEXTS[key]):
        raise InvalidRule(f"{key}: expected {' or '.join(_TEXTS[key])}, got {value[:50]!r}")
    if key == "min_age" and value:
        try:
            parse_span(value)
        except ValueError:
            raise InvalidRule(f"min_age: {value[:50]!r} is no time such as 7d or 36h") from None
    if key == "before" and value:
        _before(value)
    return value


@dataclass(frozen=True)
class Verdicts:
    """The rules on one project as of ``now``."""

    rules: Rules
    project: str
    now: float
    exempt: tuple[Wanted, ...]
    allow: tuple[Wanted, ...]
    deny: tuple[Wanted, ...]

    @cached_property
    def _latest(self) -> str | None:
        """Upload times that are written in UTC, and are less than this, satisfy the rules on age; None without any."""
        if not self.rules.min_age and self.rules.before is None:
            return None
        latest = self.now - self.rules.min_age if self.rules.min_age else float("inf")
        latest = min(latest, self.rules.before if self.rules.before is not None else float("inf"))
        return iso(latest // 1).removesuffix("Z")

    @cached_property
    def _not_before(self) -> str:
        return f"not before {iso(self.rules.before or 0.0)}"

    @cached_property
    def _known(self) -> dict[str | None, Held | None]:
        """What is known of versions: a page has many files of each."""
        return {}

    @cached_property
    def _by_name(self) -> bool:
        """Whether a verdict depends on the version of a file."""
        return bool(self.deny or self.rules.allow or self.project in self.rules.malicious.names)

    def plainly_in(self, line: bytes) -> bool:
        """Whether a file object, of its JSON, is let in for certain: most files of a page are, and this is quick.

        What was seen first is not looked at.
        """
        if self._latest is None and not self._by_name:
            return True
        try:
            if self._by_name:
                found = _named.decode(line)
                if self._of(version_of(found.filename, self.project)) is not None:
                    return False
                text = found.uploaded
            else:
                text = _age.decode(line).uploaded
        except (ValueError, RecursionError):
            return False
        if self._latest is None:
            return True
        return type(text) is str and text < self._latest and _ZULU.match(text) is not None

    def on(self, file: File, first: File | None = None) -> Held | None:
        """Why a file object (PEP 691) is held back; None for one that is allowed.

        ``first``: the file of the same name that the index knew first.
        """
        held = self._of(version_of(file["filename"], self.project)) if self._by_name else None
        if held is None and first is not None and self.rules.changed and differs(first, file):
            held = Held("changed", f"it has another hash than the file of this name had {_since(first)}")
        return held or self._aged(file)

    def _of(self, version: str | None) -> Held | None:
        try:
            return self._known[version]
        except KeyError:
            held = self._known[version] = self._of_version(version)
            return held

    def _of_version(self, version: str | None) -> Held | None:
        for wanted in self.deny:
            if wanted.has(version, unsure=True):
                return Held("deny", f"the list denies {wanted}")
        advisory = self.rules.malicious.advisory(self.project, version)
        if advisory is not None:
            return Held("malicious", f"it is known to be malicious ({advisory})")
        if self.rules.allow and not any(wanted.has(version, unsure=False) for wanted in self.allow):
            return Held("allow", f"the list does not allow {self.project} {version or 'of an unknown version'}")
        return None

    def _aged(self, file: File) -> Held | None:
        rules, latest = self.rules, self._latest
        if latest is None:
            return None
        text = file.get("upload-time")
        if type(text) is str and text < latest and _ZULU.match(text):
            return None
        uploaded = moment(text)
        if rules.before is not None:
            if uploaded is None and rules.unknown_age:
                return Held("unknown_age", "its upload time is unknown")
            if uploaded is not None and uploaded >= rules.before:
                return Held("before", self._not_before, uploaded=uploaded)
        if not rules.min_age or self._is_exempt(str(file["filename"])):
            return None
        if uploaded is None:
            return Held("unknown_age", "its upload time is unknown") if rules.unknown_age else None
        if self.now < uploaded + rules.min_age:
            return Held("min_age", f"and {rules.age} have not passed", uploaded + rules.min_age, uploaded)
        return None

    def _is_exempt(self, filename: str) -> bool:
        if not self.exempt:
            return False
        version = version_of(filename, self.project)
        return any(wanted.has(version, unsure=False) for wanted in self.exempt)


def _since(first: File) -> str:
    uploaded = moment(first.get("upload-time"))
    return "before" if uploaded is None else f"uploaded {iso(uploaded)}"


def version_of(filename: str, project: str) -> str | None:
    """The version in the name of a file of a project (normalised name); None when that is unclear."""
    if filename.endswith((".whl", ".egg")):
        parts = filename.split("-", 2)
        return parts[1] if len(parts) > 2 else parts[1][:-4] if len(parts) == 2 else None
    stem = _EXTENSIONS.sub("", filename)
    for dash in _dashes(stem):
        if canonicalize_name(stem[:dash]) == project:
            return stem[dash + 1 :] or None
    return None


def _dashes(text: str) -> Iterator[int]:
    return (found.start() for found in re.finditer("-", text))


class Brief(Struct, gc=False):
    """What decides on a file object: it is read without the other fields, which are most of it."""

    filename: str
    uploaded: Any = msgspec.field(default=None, name="upload-time")
    hashes: dict[str, Any] = {}

    @property
    def file(self) -> File:
        return {"filename": self.filename, "upload-time": self.uploaded, "hashes": self.hashes}


class _Age(Struct, gc=False):
    uploaded: Any = msgspec.field(default=None, name="upload-time")


class _Named(_Age, gc=False):
    filename: str = ""


_brief, _age, _named = Decoder(Brief), Decoder(_Age), Decoder(_Named)


def brief(line: bytes) -> File:
    """What decides on a file object, of its JSON."""
    try:
        return _brief.decode(line).file
    except (ValueError, RecursionError):  # what only Python reads
        found: File = loads(line)
        return found


@dataclass(frozen=True)
class Sifted:
    """A page: the ``lines`` of the files that are allowed, and those that are ``held`` back.

    ``until``: when the first of those will be let in (seconds since the epoch), infinite without.
    """

    lines: list[bytes]
    held: Sequence[tuple[File, Held]]
    until: float


def sift(verdicts: Verdicts, lines: bytes, firsts: Mapping[str, File]) -> Sifted:
    """Sort the files of a page, JSON with one a line. ``firsts``: by name, the file that was known first, where it is
    another one."""
    allowed: list[bytes] = []
    held: list[tuple[File, Held]] = []
    until = float("inf")
    on = verdicts.on
    plainly_in = verdicts.plainly_in if not firsts else lambda line: False
    for line in BytesIO(lines):
        if plainly_in(line):
            allowed.append(line)
            continue
        file = brief(line)
        found = on(file, firsts.get(file["filename"]) if firsts else None)
        if found is None:
            allowed.append(line)
            continue
        held.append((file, found))
        if found.until is not None and found.until < until:
            until = found.until
    return Sifted(allowed, held, until)
