"""The challenge of ``GET /+deployer``, which an order to this server answers.

The proof in an order shows that its client can read the server directory. Each challenge is valid once.
"""

from __future__ import annotations

import secrets
import threading

from deployer.protocol import client_proof, same_proof
from deployer.server.secret_files import Private, read_text

INVALID = "invalid proof, or a proof for another challenge"
"""The message for an order that is not admitted."""


class Challenge:
    """The current challenge of the server on the data ``uuid``."""

    def __init__(self, private: Private, uuid: str) -> None:
        self._private = private
        self._uuid = uuid
        self._lock = threading.Lock()
        self._words = secrets.token_hex(16)

    @property
    def words(self) -> str:
        """What the next order must answer."""
        return self._words

    def admit(self, order: str, proof: str) -> bool:
        """Whether ``proof`` is valid for ``order``; the challenge is replaced if it is."""
        key = read_text(self._private.proof_key) or ""
        with self._lock:
            expected = client_proof(key, challenge=self._words, uuid=self._uuid, order=order)
            if not same_proof(expected, proof):
                return False
            self._words = secrets.token_hex(16)
        return True
