"""A CDN before a server: nginx with a cache, or Varnish, in each one's usual configuration."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.fronting_proxy import FrontingProxy, Site
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE

_BLOCK = """\
    location / {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_cache {zone};
      proxy_cache_key $request_uri;
      proxy_cache_revalidate on;
      add_header X-Cache $upstream_cache_status always;
      {more}
    }}"""
_SOON = "proxy_ignore_headers Cache-Control; proxy_cache_valid 200 1s;"
"""A cache that has everything for a second, and then asks: so that a test does not wait."""
_VCL = """\
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_deliver {{ if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} else {{ set resp.http.X-Cache = "MISS"; }} }}
"""


class NginxCache:
    """``port``: obeys the server. ``asking``: keeps all for a second, whatever it is told, and asks then."""

    def __init__(self, root: Path, origin: int) -> None:
        self.port, self.asking = free_port(), free_port()
        sites = [
            Site(port=port, tls=False, block=_BLOCK.format(origin=origin, zone=zone, more=more))
            for port, zone, more in ((self.port, "cdn", ""), (self.asking, "soon", _SOON))
        ]
        zones = (f"  proxy_cache_path {root}/{zone} keys_zone={zone}:1m;\n" for zone in ("cdn", "soon"))
        self._proxy = FrontingProxy(root, sites, shared="".join(zones))

    def start(self) -> NginxCache:
        self._proxy.start()
        return self

    def stop(self) -> None:
        self._proxy.stop()


class Varnish:
    """Varnish with its built-in rules. ``port``: where it listens."""

    def __init__(self, root: Path, origin: int) -> None:
        root.mkdir()
        self.port, self._root, self._origin = free_port(), root, origin
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def installed() -> str:
        return shutil.which("varnishd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin") or ""

    def start(self) -> Varnish:
        vcl = self._root / "site.vcl"
        vcl.write_text(_VCL.format(origin=self._origin))
        words = [self.installed(), "-F", "-j", "none", "-n", str(self._root / "work"), "-f", str(vcl)]
        words += ["-a", f"127.0.0.1:{self.port}", "-s", "malloc,32m", "-p", "thread_pool_min=10"]
        with (self._root / "log").open("wb") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            assert self._process.poll() is None, (self._root / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def _listens(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
