"""Which mirrors an index takes pages from, and until when what devpi knows of a project there holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from devpi_common.url import URL
from pyramid.authentication import b64encode

from deployer.server.devpi.installed import inside, installed
from deployer.server.upstream import fetching
from deployer.server.upstream.health import Upstream, Upstreams, origin_of

RETRY = 5.0
"""Seconds for which a page is kept whose upstream did not give a new one."""


@dataclass(frozen=True)
class Mirror:
    """A mirror index as configured. ``expiry``: seconds that a page of it holds."""

    name: str
    url: str
    expiry: float
    credentials: str | None  # the Authorization header that the address itself gives

    def page(self, project: str) -> str:
        """The address that devpi asks for a project's page."""
        return f"{self.url}{project}/"


class Indexes:
    """A view of users and indexes that is read anew when ``configured`` has moved on."""

    def __init__(self, xom: Any, upstreams: Upstreams, known: Callable[[str], str | None] = lambda url: None) -> None:
        """``known``: the Authorization header for the mirror of an address, where it is kept apart from it."""
        self._xom = xom
        self._upstreams = upstreams
        self._known = known
        self._lock = threading.Lock()
        self._at = -1
        self._mirrors: dict[str, Mirror] = {}
        self._bases: dict[str, tuple[str, ...]] = {}

    def mirrors(self, index: str, *, configured: int) -> tuple[Mirror, ...] | None:
        """The mirrors that ``user/index`` reads, itself included; None when there is no such index.

        ``configured``: a serial that is not older than the last change of any index. Not within a transaction.
        """
        with self._lock:
            self._follow(configured)
            if index not in self._bases:
                return None
            return tuple(self._mirrors[name] for name in self._reach(index) if name in self._mirrors)

    def follow(self, configured: int) -> None:
        """Be as new as the serial ``configured``. Not within a transaction."""
        with self._lock:
            self._follow(configured)

    def _follow(self, configured: int) -> None:
        if self._at < configured:
            self._load()

    def _reach(self, index: str) -> Iterator[str]:
        todo, seen = [index], {index}
        while todo:
            name = todo.pop(0)
            yield name
            found = [base for base in dict.fromkeys(self._bases.get(name, ())) if base not in seen]
            seen.update(found)
            todo += found

    def _load(self) -> None:
        keyfs = self._xom.keyfs
        self._mirrors, self._bases = {}, {}
        with keyfs.read_transaction() as transaction:
            self._at = transaction.at_serial
            for user in self._xom.model.get_userlist():
                for index, told in inside().configured(user).items():
                    self._add(f"{user.name}/{index}", told)

    def _add(self, name: str, told: Mapping[str, Any]) -> None:
        self._bases[name] = tuple(told.get("bases") or ())
        here = installed()
        if told.get("type") == here.mirror and told.get(here.url):
            url: Any = URL(told[here.url])
            url = url.asdir()
            expiry = float(told.get(here.expiry, getattr(self._xom.config, here.expiry)))
            credentials = None
            if url.username or url.password:
                pair = f"{url.username or ''}:{url.password or ''}".encode()
                credentials = f"Basic {b64encode(pair).decode()}"
            self._mirrors[name] = Mirror(name, url.replace(username=None, password=None).url, expiry, credentials)

    # What devpi remembers of a project's page, in memory only

    def _retrieved(self, mirror: Mirror, project: str) -> float:
        return float(self._times(mirror).get_timestamp(project))

    def _times(self, mirror: Mirror) -> Any:
        return self._xom.setdefault_singleton(
            mirror.name, "project_retrieve_times", factory=inside().ProjectUpdateCache
        )

    def is_fresh(self, mirror: Mirror, project: str) -> bool:
        """Whether devpi answers for ``project`` without asking the upstream."""
        return time.time() - self._retrieved(mirror, project) < mirror.expiry

    def due(self, mirrors: tuple[Mirror, ...], project: str, *, began: float) -> float:
        """When a page that was asked of devpi at ``began`` (monotonic) becomes due: seconds since the epoch."""
        now = time.time()
        dues = [float("inf")]
        for mirror in mirrors:
            if self.is_fresh(mirror, project):
                dues.append(self._retrieved(mirror, project) + mirror.expiry)
            elif self.was_asked(mirror, project, began=began):
                dues.append(now + RETRY)  # it gave nothing new, so this is what was known before
            else:
                dues.append(now + mirror.expiry)  # nothing of it is shown, for now
        return min(dues)

    def was_asked(self, mirror: Mirror, project: str, *, began: float) -> bool:
        """Whether the mirror's page of ``project`` was asked for since ``began`` (monotonic), or waited for in vain."""
        asked = self._upstreams.asked_since(mirror.page(project), began)
        return asked or fetching.missed(self._times(mirror), project) >= began

    def gave_nothing(self, mirror: Mirror, project: str, *, began: float) -> bool:
        """Whether the mirror's upstream was asked about ``project`` since ``began`` (monotonic) and did not say.

        Where devpi was refused the list of all names, it takes the project as not existing until the mirror's expiry:
        that is put right.
        """
        if self._upstreams.asked_since(mirror.url, began) and not self._has_names(mirror):
            self._times(mirror).expire(project)
            return True
        return self.was_asked(mirror, project, began=began) and not self.is_fresh(mirror, project)

    def _has_names(self, mirror: Mirror) -> bool:
        names = self._xom.setdefault_singleton(mirror.name, "projectnames", factory=inside().ProjectNamesCache)
        return not names.is_expired(mirror.expiry)

    def upstream(self, mirror: Mirror) -> Upstream:
        """The origin that serves the mirror's pages."""
        return self._upstreams.of(mirror.url)

    # Whose credentials

    def may_get(self, url: str, authorization: str) -> bool:
        """Whether credentials may be sent to ``url``: only to the origin of the mirror that they belong to."""
        with self._lock:
            mirrors = list(self._mirrors.values())
        return any(
            origin_of(mirror.url) == origin_of(url) and authorization in self._credentials(mirror) for mirror in mirrors
        )

    def ask_again(self, urls: frozenset[str]) -> None:
        """Ask the mirrors of these addresses for every page again: other credentials may give other answers."""
        with self._lock:
            mirrors = [mirror for mirror in self._mirrors.values() if mirror.url.rstrip("/") in urls]
        for mirror in mirrors:
            times = self._times(mirror)
            for project in tuple(times._project2time):
                times.expire(project, etag=times.get_etag(project))

    def _credentials(self, mirror: Mirror) -> set[str]:
        try:
            candidates = set(self._xom.get_singleton(mirror.name, "auth_candidates"))
        except KeyError:
            candidates = set()
        return candidates | {header for header in (mirror.credentials, self._known(mirror.url)) if header}
