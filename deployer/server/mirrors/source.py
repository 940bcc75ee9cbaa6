"""What mirrors know of their upstreams' pages, and the one place that asks for more.

A page is asked for once at a time, however many want it. What an upstream answered holds for the mirror's expiry; that
it has no such project, for ``not_found_expiry`` if that is shorter. A page that is known stays in use while its
upstream does not answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import islice
from typing import Any

from devpi_server.log import threadlog
from devpi_server.normalized import normalize_name

from deployer.protocol import Outcome
from deployer.server.devpi.links import place
from deployer.server.guard.first_seen import firsts
from deployer.server.guard.rules import Held
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.let_in import file_held, first_at, page_let_in
from deployer.server.mirrors.page import ACCEPT, File, InvalidPage, Page, project_candidates, read
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.store import Head, Kept, UpstreamPages, file_hosts
from deployer.server.upstream.client import Client, NoAnswer

REFRESH_SECONDS, REFRESH_THREADS = 60.0, 8
"""Seconds after which a refresh leaves the rest to the next request, and pages that it asks for at once."""
RETRY = 5.0
"""Seconds for which a page stays in use when its upstream did not send a new one."""
AGAIN = 5.0
"""Seconds for which a client can't have an upstream asked again."""
CANDIDATES = 20
"""Projects that a file is looked for in. A name that a client made up may have thousands of dashes."""
REMEMBERED = 20_000
"""Pages of which the last answer is kept in memory."""
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
"""Statuses of an upstream that has no such project."""
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class OtherFile(Exception):
    """The page has a file of this name with another hash or address."""


def _has(known: Kept, file: File) -> bool:
    """Whether a page has this file. Raises OtherFile."""
    named = list(known.named(file["filename"]))
    if any(place(one) == place(file) for one in named):
        return True
    if named:
        raise OtherFile(file["filename"])
    return False


def validators(etag: str, modified: str) -> dict[str, str]:
    """The headers of a conditional request; both may be empty."""
    pairs = (("If-None-Match", etag), ("If-Modified-Since", modified))
    return {name: value for name, value in pairs if value}


@dataclass
class _State:
    """What is known of one page. ``at``: when the upstream was asked for its last answer (seconds since the epoch)."""

    at: float = 0.0
    missing: bool = False  # it answered that there is no such project
    absent: bool = False  # no page is on the disk
    failed: float = float("-inf")  # when it last did not answer (monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Answer:
    """The page of a project at one mirror.

    ``kept``: None when the upstream has no such project. ``current``: the upstream's own word; False when it did not
    answer, and ``kept`` is what was known before. ``until``: until when it holds. ``at``: when the upstream was asked.
    Both in seconds since the epoch.
    """

    kept: Kept | None
    current: bool
    until: float
    at: float = 0.0
    page: Page | None = None  # as the rules of the mirror let it in, where they hold anything back

    def read(self) -> Page | None:
        """The page."""
        return self.page if self.page is not None or self.kept is None else self.kept.page()


@dataclass(frozen=True)
class Decision:
    """What the rules of a mirror say of one file. ``listed``: a page names it at this path."""

    held: Held | None
    listed: bool
    project: str


class Source:
    """The pages of all mirrors. Every method may be called from any thread, outside of a transaction or in one."""

    def __init__(
        self,
        pages: UpstreamPages,
        indexes: Indexes,
        client: Client,
        rules: MirrorRules,
        *,
        offline: Callable[[], bool],
        changed: Callable[[str, str], None],
    ) -> None:
        """``changed``: called with a mirror and a project when its page is another one than before."""
        self._pages, self._indexes, self._client, self._rules = pages, indexes, client, rules
        self._offline, self._changed = offline, changed
        self._lock = threading.Lock()
        self._states: dict[tuple[str, str], _State] = {}
        self._large = threading.Lock()
        self._deleted: set[tuple[str, str]] = set()
        self.on_removed: Callable[[str], None] = lambda mirror: None
        """Called with a mirror that is no more."""
        indexes.on_change = self._configured

    # What is known

    def known(self, mirror: Mirror, project: str) -> Kept | None:
        """The page as last seen, also of a project that was deleted since."""
        return self._pages.read(mirror.name, project, url=mirror.url)

    @property
    def deleted(self) -> list[tuple[str, str]]:
        """Mirror and project of what an upstream has deleted, sorted."""
        with self._lock:
            found = sorted(self._deleted)
        return [(name, project) for name, project in found if self._indexes.mirror(name) is not None]

    def find_deleted(self, mirrors: Iterable[str]) -> None:
        """Look for what was deleted before this start."""
        for name in mirrors:
            for project in self._pages.projects(name):
                if self._pages.is_gone(name, project):
                    with self._lock:
                        if self._pages.is_gone(name, project):  # it may have come back meanwhile
                            self._deleted.add((name, project))

    def is_fresh(self, mirror: Mirror, project: str) -> bool:
        """Whether an answer holds without asking the upstream."""
        return time.time() < self._until(mirror, self._state(mirror, project))

    def is_last(self, mirror: Mirror, project: str, answer: Answer) -> bool:
        """Whether ``answer`` is the upstream's last one. If another one comes later, ``changed`` is called later."""
        return self._state(mirror, project).at == answer.at

    def failed_since(self, mirror: Mirror, project: str, moment: float) -> bool:
        """Whether the upstream was asked since ``moment`` (monotonic) and did not answer."""
        return self._state(mirror, project).failed >= moment

    @staticmethod
    def remembers(mirror: Mirror, kept: Kept) -> bool:
        """Whether a page must stay: it has the hashes of its files at first, or that its project was deleted."""
        return bool(kept.head.first or kept.head.gone or (mirror.rules.any and mirror.rules.changed))

    def drop(self, mirror: Mirror, project: str) -> bool:
        """Forget a page, so that the upstream is asked for it anew; False for one that must stay."""
        state = self._state(mirror, project)
        with state.lock:
            kept = self.known(mirror, project)
            if kept is not None and self.remembers(mirror, kept):
                return False
            self._pages.remove(mirror.name, project)
            state.at, state.missing, state.absent = 0.0, False, True
        self._changed(mirror.name, project)
        return True

    def expire(self, urls: frozenset[str]) -> None:
        """Expire every page of the mirrors at ``urls``: other credentials may give other answers."""
        for mirror in self._indexes.at(urls):
            with self._lock:
                for (name, _), state in self._states.items():
                    if name == mirror.name:
                        state.at = 0.0
            for project in self._pages.projects(mirror.name):
                self._pages.confirm(mirror.name, project, at=0.0)

    def _until(self, mirror: Mirror, state: _State) -> float:
        return state.at + (self._rules.missing(mirror.expiry) if state.missing else mirror.expiry)

    def _state(self, mirror: Mirror, project: str) -> _State:
        with self._lock:
            state = self._states.get((mirror.name, project))
            if state is not None:
                return state
        # After a start: the disk knows when the page was confirmed.
        kept = self.known(mirror, project)
        found = _State(at=kept.at, missing=kept.head.gone) if kept else _State(absent=True)
        with self._lock:
            if len(self._states) >= REMEMBERED:
                self._forget_some()
            return self._states.setdefault((mirror.name, project), found)

    def _forget_some(self) -> None:
        """Anybody may ask for any name, so those are forgotten of which no page is known; then the oldest."""
        free = [(not state.missing, state.at, key) for key, state in self._states.items() if not state.lock.locked()]
        for _, _, key in sorted(free)[: REMEMBERED // 4]:
            del self._states[key]

    def _is_gone(self, kept: Kept) -> bool:
        return kept.head.gone and not self._rules.keep_deleted

    def hosts(self, mirror: Mirror) -> list[str]:
        """The hosts of the files on the pages that are known, sorted; with their ports where those are unusual."""
        return self._pages.hosts(mirror.name)

    # The rules of mirrors

    def let_in(self, mirror: Mirror, project: str, answer: Answer) -> Answer:
        """The answer without the files that the rules of the mirror hold back; it holds until the next is let in."""
        page = answer.read() if mirror.rules.any else None
        if page is None or answer.kept is None:
            return answer
        page, until = page_let_in(mirror, project, page, answer.kept.head.first, time.time())
        return replace(answer, page=page, until=min(answer.until, until))

    def shown(self, mirror: Mirror, project: str) -> Answer | None:
        """The page as last seen, as the rules let it in."""
        kept = self.known(mirror, project)
        return None if kept is None else self.let_in(mirror, project, Answer(kept, current=False, until=float("inf")))

    def decide(self, mirror: Mirror, path: str, *, ask: bool = True) -> Decision:
        """What the rules say of the file at ``path`` below the mirror. ``ask``: for its page, if need be."""
        filename = path.rpartition("/")[2]
        found = self.find(mirror, filename, lambda kept: kept.find(path) or first_at(kept, path), ask=ask)
        project = found[0] if found is not None else str(normalize_name(next(project_candidates(filename), "")))
        return Decision(file_held(mirror, path, found, time.time()), found is not None, project)

    def held(self, index: str, path: str) -> Held | None:
        """Why the file at ``path`` below an index is held back; None for a file of no mirror.

        Nobody is asked: devpi may be in a transaction.
        """
        mirror = self._indexes.mirror(index)
        if mirror is None or not mirror.rules.any:
            return None
        return self.decide(mirror, path, ask=False).held

    # Asking

    def get(self, mirror: Mirror, project: str, *, again: bool = False) -> Answer:
        """The page, asked for if what is known holds no longer, or ``again``; as the rules of the mirror let it in.

        Raises NoAnswer when the upstream does not answer and no page is known.
        """
        return self.let_in(mirror, project, self._get(mirror, project, again=again))

    def whole(self, mirror: Mirror, project: str) -> Answer:
        """The page with all of its files, whatever the rules of the mirror are. Raises NoAnswer as :meth:`get`."""
        return self._get(mirror, project)

    def _get(self, mirror: Mirror, project: str, *, again: bool = False) -> Answer:
        """The page with all of its files.

        Raises NoAnswer when the upstream does not answer and no page is known.
        """
        if self._pages.path(mirror.name, project) is None:  # no project has such a name
            return Answer(None, True, float("inf"))
        state = self._state(mirror, project)
        began = time.time()
        with state.lock:
            known = None if state.absent else self.known(mirror, project)
            valid = time.time() < self._until(mirror, state) if not again else state.at >= began
            if self._offline() or valid:
                if known is None and not state.missing:
                    valid = False
                if valid or self._offline():
                    return self._answer(mirror, state, known)
            try:
                return self._ask(mirror, project, state, known)
            except NoAnswer as error:
                state.failed = time.monotonic()
                threadlog.warn("%s: no page of %s: %s", mirror.name, project, error)
                if known is None:
                    raise
                return Answer(None if self._is_gone(known) else known, False, time.time() + RETRY, at=state.at)

    def _answer(self, mirror: Mirror, state: _State, kept: Kept | None) -> Answer:
        if kept is not None and self._is_gone(kept):
            kept = None
        return Answer(kept, True, self._until(mirror, state), state.at)

    def _ask(self, mirror: Mirror, project: str, state: _State, known: Kept | None) -> Answer:
        now = time.time()  # before the answer: what changes while it comes is not in it
        answer = self._page(mirror, project, known)
        if answer.status_code == HTTPStatus.NOT_MODIFIED and known is not None and not known.head.gone:
            return self._confirmed(mirror, project, state, known, now)
        if answer.status_code in GONE:
            return self._missing(mirror, project, state, known, now)
        if answer.status_code != HTTPStatus.OK:
            raise NoAnswer(f"status {answer.status_code}")
        with self.alone(answer):
            return self._new(mirror, project, state, known, answer, now)

    def alone(self, answer: Any) -> contextlib.AbstractContextManager[Any]:
        """While it is entered, no other large answer is read."""
        return self._large if len(answer.content) > 1 << 20 else contextlib.nullcontext()

    def _page(self, mirror: Mirror, project: str, known: Kept | None) -> Any:
        headers = {"Accept": ACCEPT}
        if known is not None and not known.head.gone:
            headers |= validators(known.head.etag, known.head.modified)
        return self.ask(mirror, mirror.page(project), headers)

    def ask(self, mirror: Mirror, url: str, headers: dict[str, str]) -> Any:
        """An answer of the mirror's upstream, of any status and bounded as a page. Raises NoAnswer."""
        for _ in range(3):
            authorization = self._indexes.authorization(mirror)
            sent = headers | ({"Authorization": authorization} if authorization else {})
            answer = self._client.page(url, headers=sent)
            challenge = answer.headers.get("WWW-Authenticate", "")
            if answer.status_code not in _REFUSED or not self._indexes.try_others(mirror, challenge):
                break
        return answer

    def _confirmed(self, mirror: Mirror, project: str, state: _State, known: Kept, now: float) -> Answer:
        state.at, state.missing = now, False
        self._pages.confirm(mirror.name, project, at=now)
        return self._answer(mirror, state, known)

    def _missing(self, mirror: Mirror, project: str, state: _State, known: Kept | None, now: float) -> Answer:
        state.at, state.missing = now, True
        if known is not None:
            with self._lock:
                self._deleted.add((mirror.name, project))
            if known.head.gone:
                self._pages.confirm(mirror.name, project, at=now)
            else:
                threadlog.warn("the upstream of %s has deleted %s", mirror.name, project)
                with contextlib.suppress(OSError):
                    known = self._pages.mark(mirror.name, project, known, gone=True, at=now)
                if not self._rules.keep_deleted:
                    self._changed(mirror.name, project)
        return self._answer(mirror, state, known)

    def _new(self, mirror: Mirror, project: str, state: _State, known: Kept | None, answer: Any, now: float) -> Answer:
        url = str(answer.url)
        try:
            page = read(answer.content, answer.headers.get("Content-Type", ""), url=url, project=project)
        except InvalidPage as error:
            raise NoAnswer(f"invalid page: {error}") from None
        head = Head(
            mirror=mirror.url,
            url=url,
            etag=answer.headers.get("ETag", ""),
            modified=answer.headers.get("Last-Modified", ""),
            serial=answer.headers.get("X-PyPI-Last-Serial", ""),
            files=page.count,
            fields=page.fields,
            lacking=[] if known is None else known.head.lacking,
            first={} if known is None else self._firsts(mirror, project, known, page),
        )
        return self._take(mirror, project, state, known, Kept(head, now, page.lines))

    def _take(self, mirror: Mirror, project: str, state: _State, known: Kept | None, new: Kept) -> Answer:
        """Keep a page that has just come, in place of the one that was known."""
        now, head = new.at, new.head
        try:
            kept = self._pages.write(mirror.name, project, head, new.lines, at=now)
        except OSError as error:  # a full disk: clients get the page anyway
            threadlog.warn("%s: can't keep the page of %s: %s", mirror.name, project, error)
            kept = None
        with contextlib.suppress(OSError):
            self._pages.add_hosts(mirror.name, file_hosts(new.page().files))
        with self._lock:
            self._deleted.discard((mirror.name, project))
        state.at, state.missing = now if kept else 0.0, False
        state.absent = kept is None and known is None
        kept = kept or new
        if known is None or known.head.gone or (known.lines, known.head.fields) != (kept.lines, head.fields):
            self._changed(mirror.name, project)
        return self._answer(mirror, state, kept)

    @staticmethod
    def _firsts(mirror: Mirror, project: str, known: Kept, page: Page) -> dict[str, File]:
        """The files as they were at first that the new page lacks, or has with another hash."""
        found = firsts(known.head.first, known.lines, page.lines)
        new = found.keys() - known.head.first.keys()
        for name in sorted({file["filename"] for file in page.each()} & new if new else ()):
            threadlog.warn("%s: %s of %s has another hash than at first", mirror.name, name, project)
        return found

    def refresh(self, index: str, projects: tuple[str, ...] | None) -> Mapping[str, str]:
        """Ask for pages anew: of ``projects``, or of all that are known of mirror ``index``. What each one is now:
        one of ``Outcome``.

        Raises LookupError when there is no such mirror.
        """
        mirror = self._indexes.mirror(index)
        if mirror is None:
            raise LookupError(index)
        names = self._pages.projects(index) if projects is None else [str(normalize_name(name)) for name in projects]
        deadline = time.monotonic() + REFRESH_SECONDS
        with ThreadPoolExecutor(REFRESH_THREADS, "refresh") as pool:
            return dict(zip(names, pool.map(lambda name: self._refreshed(mirror, name, deadline), names), strict=True))

    def _refreshed(self, mirror: Mirror, project: str, deadline: float) -> Outcome:
        if time.monotonic() > deadline:
            return Outcome.LEFT
        before = self.known(mirror, project)
        try:
            answer = self._get(mirror, project, again=True)
        except NoAnswer:
            return Outcome.NO_ANSWER
        if not answer.current:
            return Outcome.NO_ANSWER
        kept = answer.kept
        if kept is None or kept.head.gone:
            return Outcome.GONE
        if before is None or before.head.gone or (before.lines, before.head.fields) != (kept.lines, kept.head.fields):
            return Outcome.CHANGED
        return Outcome.UNCHANGED

    # Files

    def file(self, mirror: Mirror, path: str) -> tuple[str, File, Kept] | None:
        """The project and the file object at ``path`` below the mirror, and its page; asks for the page if need be."""
        return self.find(mirror, path.rpartition("/")[2], lambda kept: kept.find(path))

    def here(self, mirror: Mirror, path: str) -> tuple[str, File, dict[str, Any]] | None:
        """The project, the file object and the fields of the page of the file at ``path``, if its page is known.

        No upstream is asked.
        """
        likeliest = islice(project_candidates(path.rpartition("/")[2]), CANDIDATES)
        for name in dict.fromkeys(str(normalize_name(name)) for name in likeliest):
            kept = self.known(mirror, name)
            file = kept.find(path) if kept else None
            if kept and file is not None:
                return name, file, kept.head.fields
        return None

    def find(
        self, mirror: Mirror, filename: str, among: Callable[[Kept], File | None], *, ask: bool = True
    ) -> tuple[str, File, Kept] | None:
        """The project of a file, what ``among`` finds on its page, and the page. ``ask``: for the page if need be."""
        likeliest = islice(project_candidates(filename), CANDIDATES)
        names = list(dict.fromkeys(str(normalize_name(name)) for name in likeliest))
        for name in names:
            kept = self.known(mirror, name)
            file = among(kept) if kept else None
            if kept and file is not None:
                return name, file, kept
        with contextlib.suppress(NoAnswer):
            if ask and names and not self.is_fresh(mirror, names[0]) and not self._offline():
                kept = self._get(mirror, names[0]).kept
                file = among(kept) if kept else None
                if kept and file is not None:
                    return names[0], file, kept
        return None

    def lacks(self, mirror: Mirror, project: str, path: str) -> None:
        """Note that the wheel at ``path`` has no metadata: its page promises none from now on."""
        state = self._state(mirror, project)
        with state.lock:
            known = self.known(mirror, project)
            if known is None or path in known.head.lacking:
                return
            with contextlib.suppress(OSError):
                self._pages.mark(mirror.name, project, known, at=known.at, lacking=[*known.head.lacking, path])
        self._changed(mirror.name, project)

    def add(self, mirror: Mirror, project: str, page: Page) -> None:
        """Add files to what is known of a page, as another server knew them.

        The page counts as expired: its upstream is asked as soon as it may be. Raises OtherFile, OSError.
        """
        state = self._state(mirror, project)
        with state.lock:
            known = self.known(mirror, project)
            new = [file for file in page.files if known is None or not _has(known, file)]
            if known is not None and not new and not known.head.gone:
                return
            fields = page.fields if known is None else known.head.fields
            whole = Page(fields, (b"" if known is None else known.lines) + Page.of(fields, new).lines)
            url, lacking = (mirror.page(project), []) if known is None else (known.head.url, known.head.lacking)
            head = Head(
                mirror=mirror.url,
                url=url,
                etag="",
                modified="",
                serial="",
                files=whole.count,
                fields=fields,
                lacking=lacking,
            )
            self._pages.write(mirror.name, project, head, whole.lines, at=0.0)
            with self._lock:
                self._deleted.discard((mirror.name, project))
            state.at, state.missing = 0.0, False
        self._changed(mirror.name, project)

    # Configuration

    def _configured(self, mirrors: Mapping[str, Mirror]) -> None:
        for name in self._pages.keep_only(mirrors):
            self._forget(name)
            self.on_removed(name)
        for name, mirror in mirrors.items():
            former = self._pages.former(name)
            if former == mirror.url:
                continue
            if former is not None:
                threadlog.warn("%s mirrors %s now: the pages of %s are forgotten", name, mirror.url, former)
            self._forget(name)
            with contextlib.suppress(OSError):
                self._pages.begin(name, mirror.url, replaced=former is not None)

    def _forget(self, index: str) -> None:
        with self._lock:
            for key in [key for key in self._states if key[0] == index]:
                del self._states[key]
            self._deleted = {key for key in self._deleted if key[0] != index}

    def has_former_links(self, mirror: Mirror) -> bool:
        """Whether devpi may have links of this upstream from before pages were kept here."""
        return not self._pages.replaced(mirror.name)

    # For the middleware and for devpi

    def names(self, index: str) -> list[str]:
        """The projects of which mirror ``index`` has a page."""
        return self._pages.projects(index)

    def has(self, index: str, project: str) -> bool | None:
        """Whether mirror ``index`` has, or once had, the project; None when the upstream does not answer."""
        mirror = self._indexes.mirror(index)
        if mirror is None:
            return None
        if self.known(mirror, project) is not None:
            return True
        try:
            return self._get(mirror, project).kept is not None
        except NoAnswer:
            return None

    def expire_page(self, index: str, project: str) -> None:
        """Have the upstream of mirror ``index`` asked for a project's page, the next time that it is wanted."""
        mirror = self._indexes.mirror(index)
        if mirror is not None:
            self._state(mirror, str(normalize_name(project))).at = 0.0

    def hasten(
        self, mirrors: Iterable[Mirror], project: str, cache_control: str, *, forget: Callable[[str], None]
    ) -> None:
        """Have the upstreams asked for a page as the request's ``Cache-Control`` demands, unless they were just asked.

        ``no-cache``: all of them. ``max-age=0``, which pip sends with every page: those that did not have the project.
        ``forget``: called with the project if one is to be asked.
        """
        demanded = cache_control.lower()
        if "no-cache" not in demanded and "max-age=0" not in demanded:
            return
        just_now = time.time() - AGAIN
        states = [self._state(mirror, project) for mirror in mirrors]
        older = [state for state in states if 0 < state.at < just_now and (state.missing or "no-cache" in demanded)]
        for state in older:
            state.at = 0.0
        if older:
            forget(project)

    def may_be_asked(self, mirror: Mirror, project: str | None, *, again: bool) -> bool:
        """Whether the upstream may be asked for a project's page, or for what it has if ``project`` is None.

        ``again``: even for a page that is fresh.
        """
        return again or (mirror.lists if project is None else not self.is_fresh(mirror, project))

    def due(self, mirrors: Iterable[Mirror], project: str, *, began: float) -> float:
        """When a page that devpi made becomes stale (seconds since the epoch). ``began``: when (monotonic)."""
        now = time.time()
        mirrors = list(mirrors)
        shown = [self.shown(mirror, project) for mirror in mirrors if mirror.rules.any]
        dues = [float("inf"), *(answer.until for answer in shown if answer is not None)]
        for mirror in mirrors if not self._offline() else ():
            if self.is_fresh(mirror, project):
                dues.append(self._until(mirror, self._state(mirror, project)))
            else:
                dues.append(now + (RETRY if self.failed_since(mirror, project, began) else mirror.expiry))
        return min(dues)
