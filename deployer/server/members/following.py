"""The threads of a replica: pages that commits of the primary change, and reports to the primary."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog

from deployer import __version__
from deployer.protocol import MemberStatus
from deployer.server.devpi.installed import inside, server_version
from deployer.server.devpi.replication import Progress
from deployer.server.guard.owners import Listing, Owners
from deployer.server.members.files import ReplicaFiles
from deployer.server.members.messages import Report, State, Told
from deployer.server.members.pages import Copying
from deployer.server.members.primary import Primary
from deployer.server.members.role import Role
from deployer.server.pages.changelog import FAR
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private, read_text, remove, write_private
from deployer.server.upstream.client import NoAnswer

BEAT = 1.0
"""Seconds between two reports, and between two looks, while nothing happens."""
SOON = 0.02
"""Seconds between two looks for a file that is on its way."""
LOST = 300.0
"""Seconds after which a replica waits no longer for the file of an upload."""
EVEN = 10.0
"""Seconds within which a replica that is in sync lacked nothing."""
NOTED_AT_ONCE, MOST_NOTED = 500, 50_000
"""Records of one report; those that are kept while the primary does not answer."""
PATIENCE = 2.0
"""Seconds that a request waits for what the primary has."""


class Following:
    """How far this replica is. ``take``: called with a state of the primary that is new, and its list of malicious
    releases if that is another one."""

    def __init__(
        self,
        xom: Any,
        private: Private,
        primary: Primary,
        store: PageStore,
        files: ReplicaFiles,
        take: Callable[[State, str | None], None],
        owners: Owners,
        copying: Copying,
    ) -> None:
        self._keyfs, self._progress, self._primary, self._store = xom.keyfs, Progress(xom), primary, store
        self._files, self._take, self._private = files, take, private
        self._stored = Path(xom.config.server_path) / "+files"
        self._seen = store.seen
        self._pending: deque[tuple[int, set[str], float]] = deque()  # serial, its files, and when it came
        self._not_copied: set[str] = set()  # indexes with uploads that are not replicated
        self._copying = copying
        self._owners, self._list = owners, ""  # the name of the primary's list that was taken last
        self._noted: deque[tuple[str, str, str]] = deque(maxlen=MOST_NOTED)
        owners.on_note = lambda *record: self._noted.append(record)
        self._state = ""
        self._changed = threading.Condition()
        self._serial = -1  # up to which all is here
        self._asked = self._told = 0  # reports that were begun, and the newest that was answered
        self._wanted = False
        self.primary_serial = -1
        """Of the primary's last commit, as last told."""
        self.answers = True
        """Whether the primary answered the last report."""
        self._contact: float | None = None  # when the primary answered last
        self._even: float | None = None  # when nothing was lacking last
        self.diverged = read_text(private.diverged) or ""
        """Which commits the primary lacks that are here: these are other data, and are not served. Empty: none."""
        self._whole = bool(read_text(private.synced))  # all of the primary's data were here once
        self._goal: int | None = None  # the serial from which on the primary waits for this replica
        self.serves = False
        """Whether clients get answers: this replica has what the primary has, or the primary does not answer."""

    def start(self) -> None:
        self._copying.start()
        for name, work in (("following", self._follow), ("reports", self._report)):
            threading.Thread(target=self._forever, args=(work,), name=name, daemon=True).start()

    @staticmethod
    def _forever(work: Callable[[], None]) -> None:
        while True:
            try:
                work()
            except Exception as error:  # a thread that ends would end replication unseen
                threadlog.error("%s: %s", type(error).__name__, error)
                time.sleep(BEAT)

    # Commits

    def _follow(self) -> None:
        if self._keyfs.wait_tx_serial(self._seen + 1, timeout=SOON if self._pending else BEAT):
            # devpi's notifier waits for files before it tells of a commit.
            self._store.catch_up()
            self._note(self._store.seen)
        while self._pending and self._is_done(*self._pending[0]):
            self._pending.popleft()
        serial = self._pending[0][0] - 1 if self._pending else self._seen
        if not self._whole and self._state and self._progress.complete:
            write_private(self._private.synced, f"{self._progress.primary}\n")
            self._whole = True
            threadlog.info("all of the primary's data are here")
            self._report_soon()
        if serial != self._serial:
            self._serial = serial
            self._report_soon()
        if self._goal is not None and serial >= self._goal and not self.diverged:
            self.serves = True
        self._files.tidy()

    def _note(self, current: int) -> None:
        """Look for the files of new commits."""
        if current - self._seen <= FAR and self._whole:
            with self._keyfs.get_connection() as connection:
                for serial in range(self._seen + 1, current + 1):
                    self._add(serial, dict(inside().uploads(self._keyfs, connection, serial)))
                    if self._files.on_demand:
                        self._files.remove(inside().removed(connection, serial))
        self._seen = current

    def _add(self, serial: int, files: dict[str, bool]) -> None:
        for _, waiting, _ in self._pending:
            waiting.difference_update(path for path, is_there in files.items() if not is_there)
        added = {path for path, is_there in files.items() if is_there and not self._comes_later(path)}
        if added:
            self._pending.append((serial, added, time.monotonic()))

    def _comes_later(self, path: str) -> bool:
        """Whether an upload is of an index that was named as a mirror whose files come on demand."""
        index = "/".join(path.split("/")[:2])
        if index in self._files.on_demand:
            self._not_copied.add(index)
        return index in self._files.on_demand

    def _is_done(self, serial: int, paths: set[str], since: float) -> bool:
        """Whether the files of a commit are here, or are not waited for any more: the primary may have lost one."""
        missing = [path for path in paths if not os.path.exists(self._stored / path)]  # noqa: PTH110
        if missing and time.monotonic() - since > LOST:
            threadlog.error("no file %s of serial %s from the primary", missing[0], serial)
            return True
        return not missing

    # Reports

    def _report_soon(self) -> None:
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    def _report(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted, BEAT)
            self._wanted = False
            self._asked += 1
            number = self._asked
        told, whole, serial = None, self._whole, self._serial
        noted = tuple(islice(self._noted, NOTED_AT_ONCE))
        try:
            told = self._answer(
                Report(
                    serial=serial,
                    state=self._state,
                    synced=whole and not self.diverged,
                    owners=self._list,
                    noted=noted,
                    pages=self._copying.mark if whole else None,
                )
            )
        except NoAnswer as error:
            if self.answers:
                threadlog.warn("the primary does not answer: %s", error)
        if told is not None and told.state.name != self._state:
            self._take(told.state, told.releases)
            self._state = told.state.name
            self._report_soon()
        if told is not None:
            self._compare(serial, told.serial)
            self._take_owners(len(noted), told.owners)
            if told.pages is not None:
                self._copying.take(told.pages)
        if whole and not self.serves and not self.diverged:
            if told is None:
                self.serves = True
            elif self._goal is None:
                self._goal = told.serial
        with self._changed:
            self.answers = told is not None
            self.primary_serial = told.serial if told is not None else self.primary_serial
            self._told = number
            self._changed.notify_all()

    def _answer(self, report: Report) -> Told:
        """The primary's answer. Raises NoAnswer, also where another primary answers."""
        told, known = self._primary.report(report), self._progress.primary
        if known and told.uuid not in ("", known):
            raise NoAnswer(f"the data {told.uuid} are there, and this replica has {known}")
        return told

    def _take_owners(self, sent: int, listed: str | None) -> None:
        """Take the primary's list of first owners. ``sent``: how many of this replica's own records the primary has."""
        for _ in range(sent):
            self._noted.popleft()
        if listed is None:
            return
        try:
            for project in self._owners.take(listed, keeping=list(self._noted)):
                self._store.forget(project)
        except (ValueError, OSError) as error:
            threadlog.error("can't store the list of first owners: %s", error)
            return
        self._list = Listing(listed).name

    def _compare(self, serial: int, primary_serial: int) -> None:
        """Note how far this replica is behind, or that it is ahead: a replica that lacked commits became the primary,
        or the primary was restored from a backup. Its next commits would be others with the same serials."""
        self._contact = time.monotonic()
        if self._private.promote.exists():
            threadlog.warn("the primary answers again: the order to promote this member is void")
            remove(self._private.promote)
        if serial >= primary_serial:
            self._even = self._contact
        if serial > primary_serial and not self.diverged:
            found = f"it has commits up to {serial}, and its primary only up to {primary_serial}"
            write_private(self._private.diverged, f"{found}\n")
            self.diverged, self.serves = found, False
            self._store.forget_all()
            threadlog.error("%s: renew this member", found)

    def status(self, role: Role) -> MemberStatus:
        """What this replica has, for whoever runs it."""
        now, progress = time.monotonic(), self._progress
        even, contact = self._even, self._contact
        lag = None if even is None else 0.0 if self.answers and even == contact else round(now - even, 1)
        uncopied = [f"{index} is no mirror: its uploads are not copied" for index in sorted(self._not_copied)]
        diverged = [f"{self.diverged}: renew this member"] if self.diverged else []
        return MemberStatus(
            number=role.number,
            role=role.kind,
            uuid=progress.primary,
            serial=self._serial,
            primary_serial=self.primary_serial,
            lag_seconds=lag,
            synced=self.serves and lag is not None and lag < EVEN,
            files_in_sync=progress.has_files,
            files_missing=progress.missing,
            errors=(*diverged, *uncopied, *progress.errors),
            version=__version__,
            server_version=server_version(),
            last_contact_seconds=None if contact is None else round(now - contact, 1),
            primary_answers=contact is not None and self.answers,
        )

    # Requests

    def wait_for_primary(self, seen: int) -> bool:
        """Ask the primary for its serial, and wait until this replica has it; whether that is newer than ``seen``."""
        if not self.answers:
            return False
        with self._changed:
            wanted = self._asked + 1  # a report that is under way may have been answered before
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._told >= wanted, PATIENCE)
            serial = self.primary_serial
            if not self.answers or serial <= seen:
                return False
        self._keyfs.wait_tx_serial(serial, timeout=PATIENCE)
        self._store.catch_up()
        return True

    def is_here(self, path: str, *, seconds: float) -> bool:
        """Wait for a file that is being replicated; ``path``: with its index."""
        until = time.monotonic() + seconds
        while not os.path.exists(self._stored / path):  # noqa: PTH110
            if time.monotonic() > until or not self.answers:
                return False
            time.sleep(SOON)
        return True
