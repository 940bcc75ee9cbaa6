"""Tell the server what its profile declares, so that its pages can show what was changed since."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

from deployer.deployment.server_dir import ServerDir
from deployer.devpi.api import DevpiApi
from deployer.devpi.topology import Topology
from deployer.errors import DeployerError
from deployer.protocol import Declared, PrivateFile, parsed


def tell(place: ServerDir, api: DevpiApi, goal: Topology, *, profile: str, changed: bool) -> None:
    """Store the declared fields of ``goal`` as the server has them now. ``changed``: whether any was just set.

    A failure is nobody's but of the pages: it is not reported.
    """
    with suppress(DeployerError, OSError):
        fields = {name: sorted(api.codec.encode(node.fields)) for name, node in goal.indexes.items()}
        wanted = [profile, {name: api.codec.encode(node.fields) for name, node in goal.indexes.items()}]
        digest = hashlib.sha256(json.dumps(wanted, sort_keys=True, default=list).encode()).hexdigest()
        if not changed and _digest(place) == digest:
            return
        now = api.index_settings()
        indexes = {name: {key: now.get(name, {}).get(key) for key in keys} for name, keys in fields.items()}
        text = json.dumps(Declared(profile=profile, sha256=digest, indexes=indexes), sort_keys=True)
        place.write(PrivateFile.DECLARED.relative, text + "\n", verb=("store", "declared"))


def _digest(place: ServerDir) -> str:
    try:
        known = parsed(place.read(PrivateFile.DECLARED.relative) or "")
    except ValueError:
        return ""
    return str(known.get("sha256")) if isinstance(known, dict) else ""
