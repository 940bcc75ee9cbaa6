"""HTTPS in nginx's words, for a server and for the balancer of a cluster."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from deployer.server.nginx.program import Nginx, NginxUnusable

_HTTP2_APART = (1, 25, 1)
"""The first nginx that has HTTP/2 as a directive of its own."""


class Template(string.Template):
    """A configuration of nginx with words such as ``%{port}``."""

    delimiter = "%"  # nginx uses the dollar sign itself


@dataclass(frozen=True, kw_only=True)
class Https:
    """``listen``: options of the directive that listens. ``directives``: of the server block."""

    listen: str
    directives: str

    @classmethod
    def of(cls, nginx: Nginx, pem: str, *, mark: str, unknown: str = "") -> Https:
        """``pem``: path of the certificate with its key. ``mark``: changes with the file. ``unknown``: a directive that
        answers requests for other hosts than ours. Raises NginxUnusable when this nginx has no HTTPS."""
        for module in ("http_ssl_module", "http_v2_module"):
            if not nginx.has(module):
                raise NginxUnusable(f"{nginx.path} has no {module}")
        apart = nginx.version_info >= _HTTP2_APART
        text = Path(__file__).with_name("tls.conf.template").read_text(encoding="utf-8")
        return cls(
            listen="ssl" if apart else "ssl http2",
            directives=("    http2 on;\n" if apart else "")
            + Template(text).substitute(pem=pem, mark=mark, unknown=unknown),
        )
