"""HTTPS of the server, and how long its certificate is valid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from deployer.diagnosis import Check, failure, ok, warning
from deployer.plan.tls import SOON


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is served at ``url``. ``left``: time until the certificate expires; None where that can't be read."""

    url: str
    answers: bool = False
    names: tuple[str, ...] = ()
    left: timedelta | None = None


def tls(seen: Seen) -> Check:
    """Whether HTTPS answers, and whether its certificate is valid for long enough."""
    if not seen.answers:
        return failure("tls", f"no HTTPS answers at {seen.url}", cure="deployer restart")
    if seen.left is None:
        return ok("tls", f"{seen.url} answers; the package cryptography is needed to read its certificate")
    told = f"{seen.url}, certificate for {', '.join(seen.names)}"
    if seen.left <= timedelta():
        return failure("tls", f"{told}: expired {-seen.left.days} days ago", cure="deployer tls renew")
    if seen.left < SOON:
        return warning("tls", f"{told}: expires in {seen.left.days} days", cure="deployer tls renew")
    return ok("tls", f"{told}: valid for {seen.left.days} days")
