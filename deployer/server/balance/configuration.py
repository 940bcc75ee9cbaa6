"""The configuration of the balancer. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployer.protocol import BALANCER_HEADER, LIVE_ROUTE, ExitCode, Refusal
from deployer.server.nginx.https import Https, Template

TEMPLATE = "balance.conf.template"
_ADDRESS = re.compile(r"(\[[0-9a-f:]+\]|[0-9.]+):([0-9]{1,5})")
_NAMED = re.compile(r"[a-zA-Z][a-zA-Z0-9.-]{0,252}:[0-9]{1,5}")


class Known(Protocol):
    """``address``: ``IP:PORT`` of a member; empty for one that has none now. ``silent``: it does not answer."""

    @property
    def address(self) -> str: ...
    @property
    def silent(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """``listen``, ``tls``: ``IP:PORT`` of HTTP and of HTTPS; no HTTPS without. ``members``: the same of each member, or
    ``NAME:PORT``. ``primary``: which of them takes writes.

    ``wait``: seconds that a member has for an answer. ``mark``: what tells this balancer from the one before it.
    """

    listen: str
    members: Sequence[str]
    primary: int
    tls: str = ""
    wait: int = 420
    mark: str = ""

    def __post_init__(self) -> None:
        """Raise Refusal for what nginx would read in another way."""
        for address in (self.listen, self.tls) if self.tls else (self.listen,):
            if _ADDRESS.fullmatch(address) is None:
                raise _refusal(f"{address!r} is no address of the form IP:PORT")
        for address in self.members:
            if _ADDRESS.fullmatch(address) is None and not is_named(address):
                raise _refusal(f"{address!r} is no address of the form IP:PORT or NAME:PORT")
        if re.fullmatch(r"[0-9a-f]*", self.mark) is None:
            raise _refusal(f"{self.mark!r} is no mark")
        if not 0 <= self.primary < len(self.members):
            raise _refusal(f"member {self.primary} is the primary, and there are {len(self.members)} members")

    def text(
        self,
        known: Sequence[Known],
        *,
        user: str,
        workers: int,
        connections: int,
        largest: int,
        https: Https | None = None,
    ) -> str:
        """The file that nginx reads. ``known``: of each member.

        Reads leave out those that are silent, unless all are. Writes go to the primary in any case: whether it is too
        late for one is the client's to say. ``user``: its directive, or nothing. ``largest``: bytes of a body.
        ``https``: of ``tls``.
        """
        silent = all(member.silent for member in known if member.address)
        places = [(self.listen, "")] + ([(self.tls, f" {https.listen}")] if https else [])
        template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
        return Template(template).substitute(
            user=user,
            workers=workers,
            connections=connections,
            largest=largest,
            reads="".join(f"    {_server('' if one.silent and not silent else one.address)}\n" for one in known),
            writes=_server(known[self.primary].address),
            listen="".join(f"    listen {address}{_only(address)}{options};\n" for address, options in places),
            https=https.directives if https else "",
            live=LIVE_ROUTE,
            header=BALANCER_HEADER,
            mark=self.mark,
            wait=self.wait,
        )


def is_named(address: str) -> bool:
    """Whether a member is given by name; the address of a name may change."""
    return _NAMED.fullmatch(address) is not None


def _only(address: str) -> str:
    return " ipv6only=on" if address.startswith("[") else ""


def _server(address: str) -> str:
    """The directive for a member. One without an address is not asked; nginx wants one all the same."""
    return f"server {address} max_fails=0;" if address else "server 127.0.0.1:9 down;"


def _refusal(message: str) -> Refusal:
    return Refusal(message, hint="deployer up", code=ExitCode.USAGE)
