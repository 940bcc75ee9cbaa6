"""nginx as a process of the benchmark's own, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.deployment import listens

NEGOTIATED = r"""
    map $http_accept $form {
        default html;
        "~application/vnd\.pypi\.simple\.v1\+json" json;
    }
"""
STATIC = r"""
    log_format counted '$request_method $status $uri $bytes_sent $body_bytes_sent';
    server {
        listen 127.0.0.1:PORT backlog=1024;
        root ROOT;
        access_log LOG;
        gzip_static on;
        gzip_vary on;
        types { text/html html; application/vnd.pypi.simple.v1+json json; }
        default_type application/octet-stream;
        location ~ ^/simple/(?<page>.*)$ {
            add_header Vary Accept;
            try_files /simple/${page}index.$form /simple/$page/index.$form =404;
        }
    }
"""


@dataclass
class Nginx:
    """One nginx; ``http``: what stands in its ``http`` block, with ``{port}`` filled in by whoever made it."""

    work: Path
    http: str
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return when it listens."""
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = "\n".join(
            f"    {kind}_temp_path {self.work}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        conf = f"""
{user}
worker_processes 2;
daemon off;
pid {self.work}/nginx.pid;
error_log {self.work}/error.log;
events {{ worker_connections 4096; }}
http {{
{temporary}
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    {self.http}
}}
"""
        (self.work / "nginx.conf").write_text(conf)
        command = [
            binary(),
            "-c",
            str(self.work / "nginx.conf"),
            "-e",
            str(self.work / "error.log"),
            "-p",
            str(self.work),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"nginx does not start:\n{(self.work / 'error.log').read_text()}")
            time.sleep(0.002)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


def binary() -> str:
    """Where nginx is. Raises SystemExit when it is not installed."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("nginx is not installed, and half of the peers are made of it\nhint: apt-get install nginx")
    return found


def static(root: Path, *, port: int, log: str = "off") -> str:
    """The configuration of a static index; ``log``: where each request is counted, ``off`` for nowhere."""
    words = {"PORT": str(port), "ROOT": str(root), "LOG": log if log == "off" else f"{log} counted"}
    text = NEGOTIATED + STATIC
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def caching(upstream: str, *, port: int, cache: Path) -> str:
    """The configuration of a cache of ``upstream``, ``http://host:port``, as one would write it by hand."""
    return (
        NEGOTIATED
        + f"""
    proxy_cache_path {cache} levels=1:2 keys_zone=index:20m max_size=4g inactive=1d use_temp_path=off;
    upstream origin {{ server {upstream.removeprefix("http://")}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Accept-Encoding $http_accept_encoding;
            proxy_cache index;
            proxy_cache_key $form$uri;
            proxy_cache_valid 200 30m;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 60s;
            proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
        }}
    }}
"""
    )
