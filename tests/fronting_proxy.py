"""Somebody's nginx before the server: it terminates TLS and serves the index below a path of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.authority import Authority
from tests.server_process import PATIENCE

_HEAD = """\
daemon off;
{user}
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/unused;
  uwsgi_temp_path {root}/unused;
  scgi_temp_path {root}/unused;
  ssl_certificate {root}/ca/cert;
  ssl_certificate_key {root}/ca/key;
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One ``server`` of nginx: a port of localhost, and what is in its block."""

    port: int
    block: str
    tls: bool = True


class FrontingProxy:
    """nginx with some sites, each of which has a certificate for ``localhost``."""

    def __init__(self, root: Path, sites: Sequence[Site], *, shared: str = "") -> None:
        """``shared``: directives of all sites."""
        root.mkdir()
        authority = Authority(root / "ca")
        authority.context("127.0.0.1", names=["localhost"])
        self.ca = authority.file
        self.sites = tuple(sites)
        self._root, self._process = root, None
        servers = "".join(
            f"  server {{ listen 127.0.0.1:{site.port}{' ssl' if site.tls else ''};\n{site.block}\n  }}\n"
            for site in sites
        )
        (root / "nginx.conf").write_text(
            f"{_HEAD.format(root=root, user='user root;' if os.geteuid() == 0 else '')}{shared}{servers}}}\n"
        )

    def start(self) -> FrontingProxy:
        """Start it, and return when all sites listen."""
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") or "nginx"
        words = [
            nginx,
            "-p",
            str(self._root),
            "-c",
            str(self._root / "nginx.conf"),
            "-e",
            str(self._root / "error.log"),
        ]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        for site in self.sites:
            while not self._listens(site.port):
                assert self._process.poll() is None, (self._root / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return self

    @staticmethod
    def _listens(port: int) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
