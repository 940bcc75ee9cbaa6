"""Who answers: what a server says about itself, and the proof of identity.

Each side proves that it can read the key in the server directory, and does not send the key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from deployer.protocol.values import flag_of, is_plain, number_of, text_of

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
            count=max(0, number_of(told.get("count")) or 0),
            projects=tuple(name for name in names[: cls.NAMED] if isinstance(name, str) and is_plain(name)),
            kept=flag_of(told.get("kept")) is True,
        )


PASSED_ON = ("Authorization", "X-Devpi-Auth", "X-Forwarded-For")
"""Headers that a proxy in front has to pass on, or to add."""


@dataclass(frozen=True, kw_only=True)
class About:
    """``GET /+deployer``: what a server says about itself. ``proof``: present when a nonce was sent.

    ``client``: the address that it takes for the client's. ``received``: which of :data:`PASSED_ON` the request had.
    """

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
    former_bytes: int | None = None
    cache_bytes: int | None = None
    cache_budget: int | None = None
    front: str | None = None
    deleted: Deleted = Deleted()
    client: str = ""
    received: tuple[str, ...] = ()
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
        told = answer.get("received")
        received = told if isinstance(told, list) else ()
        return cls(
            uuid=text_of(answer.get("uuid")) or "",
            version=text_of(answer.get("version")) or "",
            server_version=text_of(answer.get("server_version")) or "",
            default_mirror_url=text_of(answer.get("default_mirror_url")),
            web=flag_of(answer.get("web")),
            offline=flag_of(answer.get("offline")),
            challenge=text_of(answer.get("challenge")) or "",
            writable=flag_of(answer.get("writable")) is not False,
            free_bytes=number_of(answer.get("free_bytes")),
            database_bytes=number_of(answer.get("database_bytes")),
            database_unused=number_of(answer.get("database_unused")),
            former_bytes=number_of(answer.get("former_bytes")),
            cache_bytes=number_of(answer.get("cache_bytes")),
            cache_budget=number_of(answer.get("cache_budget")),
            front=text_of(answer.get("front")),
            deleted=Deleted.parse(answer.get("deleted")),
            client=text_of(answer.get("client")) or "",
            received=tuple(name for name in PASSED_ON if name in received),
            proof=text_of(answer.get("proof")),
        )
