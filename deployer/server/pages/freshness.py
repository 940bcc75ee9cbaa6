"""The mirrors that an index reads, and until when a page of a mirror is fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from devpi_common.url import URL
from pyramid.authentication import b64encode

from deployer.server.devpi import page_fetch
from deployer.server.devpi.installed import inside, installed
from deployer.server.upstream.health import Upstream, Upstreams, origin_of

RETRY = 5.0
"""Seconds for which a page stays in use when its upstream did not send a new one."""


@dataclass(frozen=True)
class Mirror:
    """A mirror index as configured. ``expiry``: seconds for which its pages are fresh."""

    name: str
    url: str
    expiry: float
    credentials: str | None  # the Authorization header from the URL itself
    lists: bool = True  # whether devpi asks the upstream for the list of all names

    def page(self, project: str) -> str:
        """The URL from which devpi gets a project's page."""
        return f"{self.url}{project}/"


class Indexes:
    """Users' indexes as configured, read again after a change."""

    def __init__(
        self, xom: Any, upstreams: Upstreams, header_of: Callable[[str], str | None] = lambda url: None
    ) -> None:
        """``header_of``: the Authorization header for a mirror's URL, from the credentials file."""
        self._xom = xom
        self._upstreams = upstreams
        self._header_of = header_of
        self._lock = threading.Lock()
        self._at = -1
        self._mirrors: dict[str, Mirror] = {}
        self._bases: dict[str, tuple[str, ...]] = {}

    def mirrors(self, index: str, *, configured: int) -> tuple[Mirror, ...] | None:
        """The mirrors that ``user/index`` reads, itself included; None when there is no such index.

        ``configured``: the serial of the last change of any index, or a later one. Call it outside a transaction.
        """
        with self._lock:
            self._refresh(configured)
            if index not in self._bases:
                return None
            return tuple(self._mirrors[name] for name in self._reach(index) if name in self._mirrors)

    def refresh(self, configured: int) -> None:
        """Read the indexes again if they are older than serial ``configured``. Call it outside a transaction."""
        with self._lock:
            self._refresh(configured)

    def _refresh(self, configured: int) -> None:
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
                for index, config in inside().configured(user).items():
                    self._add(f"{user.name}/{index}", config)

    def _add(self, name: str, config: Mapping[str, Any]) -> None:
        self._bases[name] = tuple(config.get("bases") or ())
        here = installed()
        if config.get("type") == here.mirror and config.get(here.url):
            url: Any = URL(config[here.url])
            url = url.asdir()
            expiry = float(config.get(here.expiry, getattr(self._xom.config, here.expiry)))
            credentials = None
            if url.username or url.password:
                pair = f"{url.username or ''}:{url.password or ''}".encode()
                credentials = f"Basic {b64encode(pair).decode()}"
            self._mirrors[name] = Mirror(
                name, url.replace(username=None, password=None).url, expiry, credentials, not config.get(here.no_list)
            )

    # When devpi fetched a project's page last: it keeps that in memory only

    def _retrieved(self, mirror: Mirror, project: str) -> float:
        return float(self._times(mirror).get_timestamp(project))

    def _times(self, mirror: Mirror) -> Any:
        return self._xom.setdefault_singleton(
            mirror.name, "project_retrieve_times", factory=inside().ProjectUpdateCache
        )

    def is_fresh(self, mirror: Mirror, project: str) -> bool:
        """Whether devpi answers for ``project`` without asking the upstream."""
        return time.time() - self._retrieved(mirror, project) < mirror.expiry

    def may_be_asked(self, mirror: Mirror, project: str | None, *, again: bool) -> bool:
        """Whether devpi may ask the upstream for a project's page, or for what it has if ``project`` is None.

        ``again``: even for a page that is fresh.
        """
        return again or (mirror.lists if project is None else not self.is_fresh(mirror, project))

    def due(self, mirrors: tuple[Mirror, ...], project: str, *, began: float) -> float:
        """When a page becomes stale (seconds since the epoch). ``began``: when devpi was asked for it (monotonic)."""
        now = time.time()
        dues = [float("inf")]
        for mirror in mirrors:
            if self.is_fresh(mirror, project):
                dues.append(self._retrieved(mirror, project) + mirror.expiry)
            elif self.was_asked(mirror, project, began=began):
                dues.append(now + RETRY)  # no new page came: this is the previous one
            else:
                dues.append(now + mirror.expiry)  # nothing of this mirror is in the page
        return min(dues)

    def was_asked(self, mirror: Mirror, project: str, *, began: float) -> bool:
        """Whether the page of ``project`` was asked for, or waited for in vain, since ``began`` (monotonic)."""
        asked = self._upstreams.asked_since(mirror.page(project), began)
        return asked or page_fetch.missed(self._times(mirror), project) >= began

    def gave_nothing(self, mirror: Mirror, project: str, *, began: float) -> bool:
        """Whether the upstream was asked about ``project`` since ``began`` (monotonic) and did not answer.

        When devpi does not get the list of all names, it takes the project for absent until the mirror's expiry. That
        is corrected here.
        """
        if self._upstreams.asked_since(mirror.url, began) and not self._has_names(mirror):
            self._times(mirror).expire(project)
            return True
        return self.was_asked(mirror, project, began=began) and not self.is_fresh(mirror, project)

    def _has_names(self, mirror: Mirror) -> bool:
        names = self._xom.setdefault_singleton(mirror.name, "projectnames", factory=inside().ProjectNamesCache)
        return not names.is_expired(mirror.expiry)

    def upstream(self, mirror: Mirror) -> Upstream:
        """The upstream that serves the mirror's pages."""
        return self._upstreams.of(mirror.url)

    def is_mirror(self, url: str) -> bool:
        """Whether ``url`` is that of a whole mirror, where its list of names is."""
        with self._lock:
            return any(mirror.url.rstrip("/") == url.rstrip("/") for mirror in self._mirrors.values())

    # Credentials

    def may_get(self, url: str, authorization: str) -> bool:
        """Whether ``url`` may receive this header: only the origin of the mirror that it belongs to may."""
        with self._lock:
            mirrors = list(self._mirrors.values())
        return any(
            origin_of(mirror.url) == origin_of(url) and authorization in self._credentials(mirror) for mirror in mirrors
        )

    def expire(self, urls: frozenset[str]) -> None:
        """Expire every page of the mirrors at ``urls``: other credentials may give other answers."""
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
        return candidates | {header for header in (mirror.credentials, self._header_of(mirror.url)) if header}
