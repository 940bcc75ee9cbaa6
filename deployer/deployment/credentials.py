"""Hand the credentials of mirrors to the server in a 0600 file, never as an argument or variable of a process."""

from __future__ import annotations

import json
from collections.abc import Mapping

from deployer.deployment.server_dir import ServerDir
from deployer.errors import VerificationError
from deployer.protocol import PrivateFile, parsed
from deployer.secrets import Secret

_FILE = PrivateFile.CREDENTIALS.relative


def hand_over(server_dir: ServerDir, headers: Mapping[str, Secret], *, keep: bool = False) -> bool:
    """Give the server exactly these Authorization headers, by mirror address; return whether that changed anything.

    ``keep``: headers of other addresses stay. Raises EngineError, VerificationError.
    """
    known = _known(server_dir)
    wanted = {url.rstrip("/"): header.reveal() for url, header in headers.items()}
    if keep:
        wanted = known | wanted
    if wanted == known:
        return False
    server_dir.write(_FILE, json.dumps(wanted, indent=1, sort_keys=True) + "\n", verb=("store", "credentials"))
    if _known(server_dir) != wanted:
        raise VerificationError("the server did not store the credentials of its mirrors", hint="deployer logs")
    return True


def mirrors(server_dir: ServerDir) -> frozenset[str]:
    """The mirror addresses, without a trailing slash, that the server has credentials for. Raises EngineError."""
    return frozenset(_known(server_dir))


def _known(server_dir: ServerDir) -> dict[str, str]:
    try:
        found = parsed(server_dir.read(_FILE) or "{}")
    except ValueError:
        return {}
    known = {str(url): str(header) for url, header in found.items()} if isinstance(found, dict) else {}
    for header in known.values():
        Secret(header)  # registers it for masking
    return known
