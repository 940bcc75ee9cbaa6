"""nginx by itself: the files from the disk, and a cache that knows nothing of packages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from benchmarks import nginx
from benchmarks.peers.base import Peer


@dataclass(kw_only=True)
class _OfNginx(Peer):
    server: nginx.Nginx | None = None

    @abstractmethod
    def _http(self) -> str:
        """Its ``http`` block."""

    def start(self) -> None:
        self.server = nginx.Nginx(self.work / "nginx", self._http(), self.port)
        self.server.start()
        assert self.server.process is not None
        self.processes.append(self.server.process)


@dataclass(kw_only=True)
class NginxStatic(_OfNginx):
    """The same files, sent by nginx from the disk: as fast as it gets."""

    name = "nginx static"
    mirrors = False

    def _http(self) -> str:
        return nginx.static(self.index.root, port=self.port)


@dataclass(kw_only=True)
class NginxCache(_OfNginx):
    """nginx as a cache of the upstream that knows nothing of packages."""

    name = "nginx proxy_cache"

    def _http(self) -> str:
        return nginx.caching(self.origin, port=self.port, cache=self.work / "cache")
