"""The Authorization header that a mirror sends to its upstream, from the first request on.

devpi keeps credentials in a mirror's URL, which it shows to every reader, logs and exports. Its plugin hook is called
only after a 401 or 403, and the answer is kept until it fails: an upstream that answers strangers with 404 never causes
the call, and a new secret causes one failure. So the property that devpi reads is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployer.server.devpi.installed import inside


def install(header_of: Callable[[str], str | None]) -> None:
    """Have each mirror send the header that ``header_of`` returns for its URL, else devpi's own."""
    mirror, name, address = inside().MirrorStage, inside().AUTHORIZATION, inside().address
    inherited = getattr(mirror, name).fget

    def header(self: Any) -> str | None:
        return header_of(address(self)) or inherited(self)

    setattr(mirror, name, property(header))
