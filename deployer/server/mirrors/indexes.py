"""The indexes as configured: the mirrors that each one reads, and what each mirror's upstream may be sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from devpi_common.url import URL
from devpi_server.log import threadlog
from pyramid.authentication import b64encode

from deployer.server.devpi.installed import inside, installed
from deployer.server.guard import rules
from deployer.server.guard.readers import Readers
from deployer.server.guard.rules import InvalidRule, Malicious, Rules
from deployer.server.upstream.health import Upstream, Upstreams, origin_of


@dataclass(frozen=True)
class Mirror:
    """A mirror index as configured.

    ``url``: of its upstream, with a slash at the end and without credentials. ``expiry``: seconds for which its pages
    are fresh. ``external``: clients are sent to the upstream for files. ``rules``: what is let in.
    """

    name: str
    url: str
    expiry: float
    credentials: str | None  # the Authorization header from the URL itself
    lists: bool = True  # whether devpi asks the upstream for the list of all names
    external: bool = False
    rules: Rules = field(default_factory=Rules)

    def page(self, project: str) -> str:
        """The URL from which devpi gets a project's page."""
        return f"{self.url}{project}/"


class Indexes:
    """Users' indexes as configured, read again after a change."""

    def __init__(
        self,
        xom: Any,
        upstreams: Upstreams,
        header_of: Callable[[str], str | None] = lambda url: None,
        malicious: Callable[[], Malicious] = Malicious,
    ) -> None:
        """``header_of``: the Authorization header for a mirror's URL, from the credentials file. ``malicious``: the
        list of releases that no mirror lets in."""
        self._xom = xom
        self._upstreams = upstreams
        self._header_of = header_of
        self._malicious = malicious
        self._lock = threading.Lock()
        self._at = -1
        self._mirrors: dict[str, Mirror] = {}
        self._bases: dict[str, tuple[str, ...]] = {}
        self.on_change: Callable[[Mapping[str, Mirror]], None] = lambda mirrors: None
        """Called with all mirrors, while they are locked, when one has changed."""
        self._readers = Readers()
        self.on_load: Callable[[Readers, Mapping[str, Rules]], None] = lambda readers, rules: None
        """Called with the readers of all indexes, and the rules of mirrors, while they are locked, when they were read
        again."""
        self.way = ""
        """The address of the server that is asked instead of upstreams; empty without one."""

    def mirrors(self, index: str, *, configured: int) -> tuple[Mirror, ...] | None:
        """The mirrors that ``user/index`` reads, itself included; None when there is no such index.

        ``configured``: the serial of the last change of any index, or a later one. Call it outside a transaction.
        """
        self.refresh(configured)
        return self.known(index)

    def known(self, index: str) -> tuple[Mirror, ...] | None:
        """The same, as known now."""
        with self._lock:
            if index not in self._bases:
                return None
            return tuple(self._mirrors[name] for name in self._reach(index) if name in self._mirrors)

    def readers(self, *, configured: int) -> Readers:
        """Who may read each index."""
        with self._lock:
            self._refresh(configured)
            return self._readers

    def mirror(self, index: str) -> Mirror | None:
        """The mirror of this name, as known now."""
        with self._lock:
            return self._mirrors.get(index)

    def all(self, *, configured: int) -> dict[str, Mirror]:
        """All mirrors by name."""
        with self._lock:
            self._refresh(configured)
            return dict(self._mirrors)

    def page_of(self, url: str) -> tuple[Mirror, str] | None:
        """The mirror and project whose page at the upstream has this address."""
        above, _, project = url.rstrip("/").rpartition("/")
        with self._lock:
            found = [mirror for mirror in self._mirrors.values() if mirror.url == f"{above}/"]
        return (found[0], project) if found and project else None

    def refresh(self, configured: int) -> None:
        """Read the indexes again if they are older than serial ``configured``. Call it outside a transaction."""
        with self._lock:
            self._refresh(configured)

    def outdate(self) -> None:
        """Have the indexes read again before the next request is answered: their rules have changed."""
        with self._lock:
            self._at = -1

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
        before = self._mirrors
        configs: dict[str, Mapping[str, Any]] = {}
        # A view of devpi may ask within its transaction, when a commit has changed indexes since that began.
        with keyfs.read_transaction(allow_reuse=True) as transaction:
            if transaction.at_serial <= self._at:
                return  # one that began before: what is known is newer
            self._at = transaction.at_serial
            self._mirrors, self._bases = {}, {}
            for user in self._xom.model.get_userlist():
                for index, config in inside().configured(user).items():
                    configs[f"{user.name}/{index}"] = config
                    self._add(f"{user.name}/{index}", config)
        self._readers = Readers.of(configs, at=self._at)
        self.on_load(self._readers, {name: mirror.rules for name, mirror in self._mirrors.items()})
        if self._mirrors != before:
            self.on_change(self._mirrors)

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
                name,
                url.replace(username=None, password=None).url,
                expiry,
                credentials,
                not config.get(here.no_list),
                bool(config.get(here.external)),
                self._rules(name, config),
            )

    def _rules(self, name: str, config: Mapping[str, Any]) -> Rules:
        try:
            return Rules.of(config, self._malicious())
        except InvalidRule as error:  # data of another program: such values can't be set here
            threadlog.error("%s lets in nothing: %s", name, error)
            return rules.nothing(config)

    def upstream(self, mirror: Mirror) -> Upstream:
        """The upstream that serves the mirror's pages."""
        return self._upstreams.of(self.way or mirror.url)

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

    def at(self, urls: frozenset[str]) -> list[Mirror]:
        """The mirrors of the upstreams at ``urls``, which have no slash at the end."""
        with self._lock:
            return [mirror for mirror in self._mirrors.values() if mirror.url.rstrip("/") in urls]

    def authorization(self, mirror: Mirror) -> str | None:
        """The Authorization header for the mirror's upstream: from the credentials file, of a plugin, or its URL."""
        return self._header_of(mirror.url) or next(iter(self._candidates(mirror)), mirror.credentials)

    def try_others(self, mirror: Mirror, challenge: str) -> bool:
        """Whether a plugin has other credentials for an upstream that answered with ``WWW-Authenticate: challenge``."""
        with self._xom.keyfs.read_transaction():
            stage = self._xom.model.getstage(mirror.name)
            return stage is not None and bool(inside().try_others(stage, challenge))

    def _candidates(self, mirror: Mirror) -> list[str]:
        try:
            return list(self._xom.get_singleton(mirror.name, "auth_candidates"))
        except KeyError:
            return []

    def _credentials(self, mirror: Mirror) -> set[str]:
        candidates = set(self._candidates(mirror))
        return candidates | {header for header in (mirror.credentials, self._header_of(mirror.url)) if header}
