"""Who a server says that it is, and how it proves it. Pure."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from deployer.devpi.answers import JsonObject, line, text

_UUID = re.compile(r"[0-9a-fA-F-]{8,64}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who answers. ``proof`` and what follows it are only known of a server with deployer's plugin."""

    uuid: str
    server_version: str = ""
    proof: str | None = None
    default_mirror_url: str = ""
    deployer_version: str = ""
    web: bool | None = None
    offline: bool | None = None
    challenge: str = ""
    front: str = ""

    @classmethod
    def of_ours(cls, answer: JsonObject) -> Identity:
        """What a server with deployer's plugin tells of itself."""
        web, offline, proof = answer.get("web"), answer.get("offline"), answer.get("proof")
        return cls(
            uuid=text(answer.get("uuid")),
            server_version=line(text(answer.get("server_version"))),
            proof=proof if isinstance(proof, str) else None,
            default_mirror_url=text(answer.get("default_mirror_url")),
            deployer_version=line(text(answer.get("version"))),
            web=web if isinstance(web, bool) else None,
            offline=offline if isinstance(offline, bool) else None,
            challenge=text(answer.get("challenge")),
            front=line(text(answer.get("front"))),
        )

    @classmethod
    def of_any(cls, status: JsonObject) -> Identity:
        """What any devpi tells in its status."""
        versions = status.get("versioninfo")
        version = versions.get("devpi-server") if isinstance(versions, dict) else None
        return cls(uuid=text(status.get("uuid")), server_version=line(text(version)))

    @property
    def told(self) -> bool:
        """Whether there is a uuid, which devpi always has."""
        return _UUID.fullmatch(self.uuid) is not None


def verify(identity: Identity, *, nonce: str, proof_key: str) -> bool:
    """Whether the server knows ``proof_key`` (hex), shown by its answer to ``nonce``."""
    try:
        key = bytes.fromhex(proof_key)
    except ValueError:
        return False
    expected = _proof(key, f"{nonce}:{identity.uuid}")
    return bool(key) and hmac.compare_digest(expected.encode(), (identity.proof or "").encode())


def answer(identity: Identity, *, saying: str, proof_key: str) -> str:
    """Our own proof, to the challenge of ``identity``, that whoever is ``saying`` this knows ``proof_key`` (hex)."""
    return _proof(bytes.fromhex(proof_key), f"{identity.challenge}:{identity.uuid}:{saying}")


def _proof(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), "sha256").hexdigest()
