"""What a primary knows of its replicas, and what it tells them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer.protocol import is_index_name, is_project_name, parsed
from deployer.server.devpi.replication import is_member, member_of
from deployer.server.guard.owners import Owners
from deployer.server.json_text import dumps
from deployer.server.members.messages import (
    AGE_HEADER,
    CURRENT_HEADER,
    MEMBER_ROUTE,
    PAGE_ROUTE,
    STORED,
    Report,
    State,
    Told,
)
from deployer.server.members.pages import Journal, Written
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.responses import SharedResponse, busy
from deployer.server.middleware.single_flight import CHECK_EVERY, SingleFlight
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.source import Answer, Source
from deployer.server.mirrors.store import Kept
from deployer.server.secret_files import write_private
from deployer.server.upstream.client import NoAnswer

Handler = Callable[[Any], Any]
LIVE = 10.0
"""Seconds since its last report after which nobody waits for a replica."""
LONGEST = 60.0
"""Seconds that a write waits until one replica has it, if any lives; and after which nobody waits for a replica that
gets no further."""
LOOK = 0.1
"""Seconds after which a write that waits looks again who lives."""
_READS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Seen:
    """A replica's last report. ``at``: when it came. ``stuck``: since when it is behind and gets no further; None while
    it is not. Both monotonic."""

    report: Report
    at: float
    stuck: float | None = None


class Replicas:
    """The replicas of a primary, by the uuid of each. ``path``: the file with the uuids of those that reported: after a
    start, writes wait for them as if they had just reported."""

    def __init__(self, path: Path, *, write_wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._write_wait, self._clock = path, write_wait, clock
        former = Report(serial=-1, state="", synced=True)
        self._seen = {uuid: Seen(former, clock()) for uuid in _read(path)}
        self._kept: set[str] = set()
        self._changed = threading.Condition()

    def note(self, uuid: str, report: Report, *, serial: int) -> None:
        """Take a report. ``serial``: of the last commit."""
        now = self._clock()
        with self._changed:
            before = self._seen.get(uuid)
            stuck: float | None = None
            if report.serial < serial:
                same = before is not None and before.stuck is not None and before.report.serial == report.serial
                stuck = before.stuck if same and before is not None else now
            self._seen[uuid] = Seen(report, now, stuck)
            if uuid not in self._kept:
                self._kept.add(uuid)
                with contextlib.suppress(OSError):  # the disk is full
                    write_private(self._path, json.dumps(sorted(self._kept)))
            self._changed.notify_all()

    def _have(self, holds: Callable[[Report], bool]) -> tuple[int, int]:
        """Of how many live replicas that holds, and how many there are."""
        now = self._clock()
        live = [
            seen.report
            for seen in self._seen.values()
            if now - seen.at < LIVE and seen.report.synced and (seen.stuck is None or now - seen.stuck < LONGEST)
        ]
        return sum(map(holds, live)), len(live)

    def wait(self, serial: int) -> bool:
        """Wait until all live replicas have a commit and its uploads; after ``write_wait`` one of them is enough.

        False when none has it, though some live.
        """
        return self._wait(lambda report: report.serial >= serial, longest=LONGEST)

    def wait_for_state(self, state: State) -> bool:
        """Wait until all live replicas have a state, but no longer than ``write_wait``."""
        return self._wait(lambda report: report.state == state.name, longest=0.0)

    def _wait(self, holds: Callable[[Report], bool], *, longest: float) -> bool:
        began = self._clock()
        with self._changed:
            while True:
                have, live = self._have(holds)
                waited = self._clock() - began
                if have == live or (have and waited >= self._write_wait):
                    return True
                if waited >= max(longest, self._write_wait):
                    return False
                self._changed.wait(LOOK)


def _read(path: Path) -> list[str]:
    try:
        return [uuid for uuid in parsed(path.read_bytes()) if isinstance(uuid, str)]
    except (OSError, ValueError, TypeError):
        return []


def tag(kept: Kept) -> str:
    """Another one for a page with other files or fields."""
    return f'"{hashlib.sha256(_head(kept) + kept.lines).hexdigest()}"'


def _head(kept: Kept) -> bytes:
    return bytes(dumps(vars(kept.head))) + b"\n"


class PrimaryTween:
    """The tween of a primary, above all others: what replicas ask, and writes that wait for them."""

    def __init__(
        self,
        replicas: Replicas,
        source: Source,
        indexes: Indexes,
        bulkhead: Bulkhead,
        *,
        serial: Callable[[], int],
        configured: Callable[[], int],
        state: Callable[[], tuple[State, str]],
        timeout: float,
        forget: Callable[[str], None],
        owners: Owners,
        journal: Journal,
        uuid: str,
    ) -> None:
        """``serial``: of the last commit. ``configured``: the serial of the last change of any index. ``state``: what
        replicas have to know besides, and the list of malicious releases. ``forget``: drops the pages of a project."""
        self._replicas, self._source, self._indexes, self._bulkhead = replicas, source, indexes, bulkhead
        self._serial, self._configured, self._state, self._timeout = serial, configured, state, timeout
        self._forget, self._owners, self._journal, self._uuid = forget, owners, journal, uuid
        self._flights: SingleFlight[Answer] = SingleFlight("page")

    def tween(self, handler: Handler) -> Handler:
        def handle(request: Any) -> Any:
            path = request.path_info
            if path == MEMBER_ROUTE or path.startswith(PAGE_ROUTE):
                if not is_member(request):
                    return SharedResponse.of_text(403, "only replicas of this server may ask that").to_pyramid()
                return self._report(request) if path == MEMBER_ROUTE else self._page(request)
            response = handler(request)
            if request.method not in _READS and response.status_code < HTTPStatus.BAD_REQUEST:
                self._acknowledge(response)
            return response

        return handle

    def _acknowledge(self, response: Any) -> None:
        """Answer a write once the replicas have it: another one may serve the next request of this client."""
        serial = response.headers.get("X-Devpi-Serial", "")
        if serial.isdecimal():
            self._replicas.wait(int(serial))

    def _report(self, request: Any) -> Any:
        try:
            report = Report.parse(request.body)
        except ValueError:
            return SharedResponse.of_text(400, "this is no report").to_pyramid()
        serial = self._serial()
        self._replicas.note(member_of(request), report, serial=serial)
        state, releases = self._state()
        told = Told(
            serial=serial,
            state=state,
            releases=None if report.state == state.name else releases,
            owners=self._first(report),
            pages=self._written(report),
            uuid=self._uuid,
        )
        return Response(body=json.dumps(told.json).encode(), content_type="application/json")

    def _first(self, report: Report) -> str | None:
        """Record what a replica saw first; the list of all records, where the replica has another one."""
        for index, project, owner in report.noted:
            if is_index_name(index) and is_index_name(owner) and self._owners.first(index, project) is None:
                self._owners.note(index, project, owner)
        found = self._owners.listing
        return None if report.owners == found.name else found.text

    def _written(self, report: Report) -> Written | None:
        written = None if report.pages is None else self._journal.since(report.pages)
        return written if written is not None and written.names else None

    def _page(self, request: Any) -> Any:
        name, _, project = request.path_info.removeprefix(PAGE_ROUTE).rpartition("/")
        self._indexes.refresh(self._configured())
        mirror = self._indexes.mirror(name)
        if mirror is None or not is_index_name(name) or not is_project_name(project):
            return SharedResponse.of_text(404, f"no mirror {name}").to_pyramid()
        if request.headers.get("Cache-Control") == STORED:
            kept = self._source.known(mirror, project)
            if kept is None:
                return SharedResponse.of_text(504, f"no page of {project} is kept").to_pyramid()
            return _answered(request, Answer(kept, current=True, until=0.0, at=kept.at))
        self._source.hasten([mirror], project, request.headers.get("Cache-Control", ""), forget=self._forget)
        try:
            answer = self._asked(mirror, project)
        except NoAnswer as error:
            return SharedResponse.of_text(502, str(error)).to_pyramid()
        if answer is None:
            return busy()
        return _answered(request, answer)

    def _asked(self, mirror: Mirror, project: str) -> Answer | None:
        """The whole page; None when its upstream does not answer at present. Raises NoAnswer."""
        if self._source.is_fresh(mirror, project):
            return self._source.whole(mirror, project)
        deadline = time.monotonic() + self._timeout * 2
        with self._bulkhead.waiting([self._indexes.upstream(mirror)]) as permit:
            flight, _ = self._flights.join([f"{mirror.name}/{project}"], lambda: self._source.whole(mirror, project))
            while not flight.wait(CHECK_EVERY):
                if not permit.valid or time.monotonic() > deadline:
                    return None
            return flight.result


def _answered(request: Any, answer: Answer) -> Any:
    kept = answer.kept
    headers = [
        ("Content-Type", "application/octet-stream"),
        (AGE_HEADER, f"{max(0.0, time.time() - answer.at):.3f}"),
        (CURRENT_HEADER, "yes" if answer.current else "no"),
    ]
    if kept is None:
        return Response(status=404, headerlist=headers)
    known = tag(kept)
    if request.headers.get("If-None-Match") == known:
        return Response(status=304, headerlist=[*headers, ("ETag", known)])
    return Response(headerlist=[*headers, ("ETag", known)], body=_head(kept) + kept.lines)
