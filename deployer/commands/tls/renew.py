"""``deployer tls renew``: a new certificate for the running server."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Give the server the certificate that its files hold now.

    For the hook of an ACME client, and for a timer: a certificate of deployer's own CA is renewed in time. The server
    goes on, and no request fails.
    """
    from deployer.operations.tls import renew

    found = renew(options.profile, options.name, lock_wait=options.wait)
    ends = f"{found.ends:%Y-%m-%d}"
    ui.step("tls", f"certificate until {ends}: {'renewed' if found.changed else 'unchanged'}")
    return Result(data={"changed": found.changed, "ends": found.ends.isoformat(), "fingerprint": found.fingerprint})
