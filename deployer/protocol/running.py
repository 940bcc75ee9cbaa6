"""What a server that runs gets from the command line, or takes over from the one before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TypedDict

from deployer.protocol.values import parsed


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
