"""The pages of a replica's mirrors: the primary is asked for them, and no upstream."""

from __future__ import annotations

import contextlib
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from deployer.server.json_text import loads
from deployer.server.members.messages import AGE_HEADER, CURRENT_HEADER
from deployer.server.members.primary import Primary
from deployer.server.members.replicas import tag
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.source import GONE, RETRY, Answer, Source, _State
from deployer.server.mirrors.store import Head, Kept
from deployer.server.upstream.client import NoAnswer

_API = "/pypi/"


class ReplicaSource(Source):
    """A page is kept as the primary has it, so files are at the same paths, and their addresses at the upstream are
    known here. While the primary does not answer, pages that are known stay in use."""

    def __init__(self, *args: Any, primary: Primary, **words: Any) -> None:
        super().__init__(*args, **words)
        self._primary = primary

    def _ask(self, mirror: Mirror, project: str, state: _State, known: Kept | None) -> Answer:
        again = state.at == 0.0 and (known is not None or state.missing)
        answer = self._primary.page(mirror.name, project, tag="" if known is None else tag(known), again=again)
        if (
            answer.status_code not in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED, *GONE)
            or AGE_HEADER not in answer.headers
        ):
            raise NoAnswer(f"the primary answers with status {answer.status_code}")
        at = time.time() - _seconds(answer.headers[AGE_HEADER])
        if answer.status_code in GONE:
            found = self._missing(mirror, project, state, known, at)
        elif answer.status_code == HTTPStatus.NOT_MODIFIED and known is not None:
            found = self._confirmed(mirror, project, state, known, at)
        else:
            found = self._take(mirror, project, state, known, _kept(mirror, answer.content, at))
        if answer.headers.get(CURRENT_HEADER) == "yes":
            return found
        state.failed = time.monotonic()
        return Answer(found.kept, False, time.time() + RETRY, at=state.at)

    def copy(self, mirror: Mirror, project: str) -> None:
        """Keep the page as the primary keeps it. Raises NoAnswer."""
        state = self._state(mirror, project)
        with state.lock:
            known = self.known(mirror, project)
            answer = self._primary.stored(mirror.name, project, tag="" if known is None else tag(known))
            at = time.time() - _seconds(answer.headers.get(AGE_HEADER, ""))
            if answer.status_code == HTTPStatus.OK and AGE_HEADER in answer.headers:
                self._take(mirror, project, state, known, _kept(mirror, answer.content, at))
            elif answer.status_code == HTTPStatus.NOT_MODIFIED and known is not None and at > state.at:
                self._confirmed(mirror, project, state, known, at)

    def ask(self, mirror: Mirror, url: str, headers: dict[str, str]) -> Any:
        """A page of the JSON API, as the primary's canonical view has it."""
        _, _, name = urlsplit(url).path.rpartition(_API)
        return self._primary.get(f"{mirror.name}/+canonical{_API}{name}", headers)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    return 0.0


def _kept(mirror: Mirror, body: bytes, at: float) -> Kept:
    """Raises NoAnswer."""
    first, _, lines = body.partition(b"\n")
    try:
        head = Head(**loads(first))
    except (ValueError, TypeError):
        raise NoAnswer("the primary sends no page") from None
    if head.mirror != mirror.url:
        raise NoAnswer("the mirror has another address at the primary")
    return Kept(head, at, lines)
