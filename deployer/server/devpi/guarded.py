"""The rules of mirrors where devpi itself serves: the attributes of an index, links of a project, and files.

devpi's own pages, versions and pushes are made of the links that it has stored of a mirror, and its view sends any
file that it has. Both obey the rules of the mirror, as pages and files that are made here do.
"""

from __future__ import annotations

from typing import Any

from devpi_server.log import threadlog
from devpi_server.views import PyPIView
from pyramid.response import Response

from deployer.server.devpi.installed import inside
from deployer.server.devpi.replication import is_member
from deployer.server.guard.rules import KEYS, Held, InvalidRule, checked

HELD = "deployer_held"
"""Attribute of devpi's ``xom``: a function of a mirror's name and the path of a file below it: why it is held back."""
HEADER = "X-Deployer-Held"
"""The header of a refusal: the key of the rule."""
_LINKS, _SEND = "get_simplelinks_perstage", "_pkgserv"


def refusal(held: Held, filename: str, index: str) -> Any:
    """The response to a request for a file that is held back. pip shows the reason in its first line."""
    reason, headers, body = refused(held, filename, index)
    return Response(status=f"403 {reason}", headerlist=list(headers), body=body)


def refused(held: Held, name: str, index: str) -> tuple[str, tuple[tuple[str, str], ...], bytes]:
    """What the response 403 is made of: its status line, headers and body. ``name``: of a file or a project."""
    until = f" until {held.date}" if held.until is not None else ""
    threadlog.warn("%s", held.line(name, index))
    headers = (("Content-Type", "text/plain; charset=utf-8"), (HEADER, held.rule), ("Cache-Control", "no-store"))
    return f"Held back{until} by {held.rule}", headers, f"{held.line(name, index)}\n".encode()


def install() -> None:
    """Add the attributes to devpi's mirrors, and have devpi obey them."""
    inside().add_fields(KEYS, _normalized)
    mirror = inside().MirrorStage
    links, send = getattr(mirror, _LINKS), getattr(PyPIView, _SEND)

    def get_simplelinks_perstage(self: Any, project: Any) -> Any:
        found = links(self, project)
        held = getattr(self.xom, HELD, None)
        if held is not None:
            kept = [link for link in found if held(self.name, inside().link_place(link)) is None]
            if len(kept) != len(found):
                found._links = kept
        return found

    def _pkgserv(self: Any, entry: Any, **words: Any) -> Any:
        index, path = inside().entry_place(entry)
        held = None if is_member(self.request) else getattr(self.xom, HELD)(index, path)
        if held is not None:
            return refusal(held, path.rpartition("/")[2], index)
        return send(self, entry, **words)

    setattr(mirror, _LINKS, get_simplelinks_perstage)
    setattr(PyPIView, _SEND, _pkgserv)


def _normalized(key: str, value: Any) -> Any:
    try:
        return checked(key, value)
    except InvalidRule as error:
        raise inside().InvalidIndexconfig([str(error)]) from None
