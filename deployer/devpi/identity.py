"""The identity that a server states, and its proof. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deployer.devpi.answers import JsonObject, line, text
from deployer.protocol import About, same_proof, server_proof

_UUID = re.compile(r"[0-9a-fA-F-]{8,64}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identity that a server reports. ``proof`` and all after it need deployer's plugin."""

    uuid: str
    server_version: str = ""
    proof: str | None = None
    default_mirror_url: str = ""
    deployer_version: str = ""
    web: bool | None = None
    offline: bool | None = None
    challenge: str = ""
    front: str = ""
    database_bytes: int | None = None
    free_bytes: int | None = None
    cache_budget: int | None = None

    @classmethod
    def of_ours(cls, answer: JsonObject) -> Identity:
        """What a server with deployer's plugin tells of itself."""
        about = About.parse(answer)
        return cls(
            uuid=about.uuid,
            server_version=line(about.server_version),
            proof=about.proof,
            default_mirror_url=about.default_mirror_url or "",
            deployer_version=line(about.version),
            web=about.web,
            offline=about.offline,
            challenge=about.challenge,
            front=line(about.front or ""),
            database_bytes=about.database_bytes,
            free_bytes=about.free_bytes,
            cache_budget=about.cache_budget,
        )

    @classmethod
    def of_any(cls, status: JsonObject) -> Identity:
        """Parse the status of any devpi."""
        versions = status.get("versioninfo")
        version = versions.get("devpi-server") if isinstance(versions, dict) else None
        return cls(uuid=text(status.get("uuid")), server_version=line(text(version)))

    @property
    def told(self) -> bool:
        """Whether it has a uuid, as every devpi does."""
        return _UUID.fullmatch(self.uuid) is not None


def verify(identity: Identity, *, nonce: str, proof_key: str) -> bool:
    """Whether the answer to ``nonce`` proves that the server knows ``proof_key`` (hex)."""
    try:
        expected = server_proof(proof_key, nonce=nonce, uuid=identity.uuid)
    except ValueError:
        return False
    return same_proof(expected, identity.proof or "")
