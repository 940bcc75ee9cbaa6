"""What is known of the installed nginx from an earlier start, so that it is asked again only after a change.

``nginx -V`` and ``nginx -t`` take a twentieth of a start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployer.protocol import parsed
from deployer.server.secret_files import write_private


@dataclass(frozen=True, kw_only=True)
class Known:
    """``program``: identity of the program's file. ``printed``: output of ``nginx -V``. ``accepted``: digest of the
    command line and the configuration that passed ``nginx -t``; empty while none did."""

    program: str
    printed: str
    accepted: str = ""

    @classmethod
    def read(cls, path: Path) -> Known | None:
        """None when the file is absent or damaged: nginx is asked then."""
        try:
            found = parsed(path.read_bytes())
            words = {name: found[name] for name in ("program", "printed", "accepted")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(**words) if all(isinstance(word, str) for word in words.values()) else None

    def write(self, path: Path) -> None:
        """Without it, as on a full disk, the next start asks nginx again."""
        with contextlib.suppress(OSError):
            write_private(path, json.dumps(asdict(self)), durable=False)


def identity(program: str) -> str:
    """Changes whenever a package manager, or anybody, replaces or overwrites the file. Raises OSError."""
    real = Path(program).resolve()
    status = real.stat()
    return f"{real} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def digest(command: Sequence[str], configuration: str) -> str:
    """Of all that decides whether nginx accepts a configuration; the user decides which files it may open."""
    whole = json.dumps([os.geteuid(), os.getegid(), list(command), configuration])
    return hashlib.sha256(whole.encode()).hexdigest()
