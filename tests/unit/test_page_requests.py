"""What a request for a page says of its client: the format that it wants, and whether it takes gzip."""

from __future__ import annotations

import pytest
from pyramid.request import Request

from deployer.server.middleware.requests import negotiate, takes_gzip

JSON = "application/vnd.pypi.simple.v1+json"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        *[
            (header, True)
            for header in ("gzip", "GZIP", "br, gzip", "gzip, deflate", "gzip;q=0.5", "br;q=0, gzip ; q=1")
        ],
        *[
            (header, False)
            for header in ("", "identity", "br", "*", "gzip;q=0", "gzip; q=0.00, br", "gzipped", "x-gzip")
        ],
    ],
)
def test_who_takes_gzip(header: str, taken: bool) -> None:
    assert takes_gzip(Request.blank("/", headers={"Accept-Encoding": header})) is taken


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Accept": f"{JSON}, text/html;q=0.1", "User-Agent": "pip/24.0"}, "json"),
        ({"Accept": "text/html", "User-Agent": "pip/24.0"}, "html"),
        ({"Accept": "text/html", "User-Agent": "Mozilla/5.0"}, None),
        ({"Accept": "", "User-Agent": "pip/24.0"}, "html"),
        ({"Accept": "image/png", "User-Agent": "pip/24.0"}, "html"),
        ({"User-Agent": "pip/24.0"}, "html"),
        ({"User-Agent": "Mozilla/5.0"}, None),
        ({"Accept": JSON, "User-Agent": "Mozilla/5.0"}, "json"),
    ],
)
def test_the_format_that_a_client_wants(headers: dict[str, str], kind: str | None, again: bool) -> None:
    found = negotiate(Request.blank("/", headers=headers))
    assert (found and found.kind) == kind
