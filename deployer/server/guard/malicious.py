"""The list of releases that are known to be malicious: ``<serverdir>/.deployer/malicious.json``.

deployer's command line makes it from files in OSV's format and replaces it while the server runs::

    {"advisories": 2, "names": {"evil": {"*": "MAL-2025-1"}, "demo": {"1.2": "MAL-2025-2"}}}

Names are normalised, and versions canonical (``packaging.utils.canonicalize_version``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from deployer.protocol import parsed
from deployer.server.guard.rules import Malicious


class InvalidList(ValueError):
    """A list that is not understood."""


def read(path: Path) -> Malicious:
    """The list; an empty one where there is no file. Raises InvalidList."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Malicious()
    except OSError as error:
        raise InvalidList(f"can't read {path}: {error.strerror}") from None
    try:
        names = parsed(content)["names"]
        if not _is_list(names):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidList(f"{path} is no list of malicious releases") from None
    return Malicious(hashlib.sha256(content).hexdigest(), names)


def _is_list(names: Any) -> bool:
    return isinstance(names, dict) and all(
        isinstance(versions, dict) and all(isinstance(advisory, str) for advisory in versions.values())
        for versions in names.values()
    )
