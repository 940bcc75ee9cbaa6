"""What caches are told, and who is answered with 304."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.request import Request
from pyramid.response import Response

from deployer.server import cdn
from deployer.server.middleware.caching import completed
from deployer.server.pages.tags import moment, tag
from deployer.server.secret_files import write_private

PAGE = {"Cache-Control": "no-cache", "Vary": "Accept", "Content-Type": "text/html"}


def answered(
    headers: dict[str, str], *, status: int = 200, body: bytes = b"page", method: str = "GET", **asked: str
) -> Any:
    request = Request.blank(
        "/", method=method, headers={name.replace("_", "-"): value for name, value in asked.items()}
    )
    return completed(request, Response(status=status, headerlist=list(headers.items()), body=body))


def test_a_page_gets_the_tag_that_nginx_makes_of_its_file(tmp_path: Any) -> None:
    write_private(tmp_path / "json", b"page", durable=False, modified=moment(b"page"))
    found = (tmp_path / "json").stat()
    assert answered(PAGE).headers["ETag"] == f'"{int(found.st_mtime):x}-{found.st_size:x}"'  # its ngx_http_set_etag
    assert tag(b"page") == tag(b"page") != tag(b"pages")


@pytest.mark.parametrize("sent", ['"{0}"', 'W/"{0}"', '"other", "{0}"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_the_page_is_told_so(sent: str, method: str) -> None:
    got = answered(PAGE, method=method, If_None_Match=sent.format(tag(b"page")))
    assert (got.status_code, got.body, got.headers["ETag"]) == (304, b"", f'"{tag(b"page")}"')
    assert (got.headers["Vary"], got.headers["Cache-Control"]) == ("Accept", "no-cache")
    assert "Content-Type" not in got.headers


def test_others_get_it() -> None:
    assert answered(PAGE, If_None_Match='"other"').status_code == 200
    assert answered(PAGE, method="POST", If_None_Match="*").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "told"),
    [
        ({}, 200, "no-store"),
        ({}, 404, "no-store"),
        ({"Cache-Control": cdn.OPEN_FILE}, 404, "no-store"),
        ({"Cache-Control": cdn.OPEN_FILE}, 416, "no-store"),
        ({"Location": "/"}, 302, "no-store"),
        ({"Last-Modified": "Sat, 01 Jan 2028 00:00:00 GMT"}, 200, "no-cache"),
        ({"Cache-Control": cdn.OPEN_FILE}, 206, cdn.OPEN_FILE),
        (PAGE, 200, "no-cache"),
    ],
)
def test_every_answer_says_what_may_be_kept(headers: dict[str, str], status: int, told: str) -> None:
    assert answered(headers, status=status).headers["Cache-Control"] == told


def test_an_answer_that_others_would_not_get_is_not_kept() -> None:
    got = answered(PAGE, X_Devpi_Absolute_Urls="1")
    assert (got.headers["Cache-Control"], "ETag" in got.headers) == ("no-store", False)
    assert (
        answered({"Cache-Control": cdn.OPEN_FILE}, X_Devpi_Absolute_Urls="1").headers["Cache-Control"] == cdn.OPEN_FILE
    )


def test_the_head_of_a_file_has_no_tag_of_its_body() -> None:
    response = Response(headerlist=[*PAGE.items(), ("Content-Length", "1000")], app_iter=[])
    assert "ETag" not in completed(Request.blank("/", method="HEAD"), response).headers


def test_what_some_may_read_is_private() -> None:
    for kept in (cdn.NO_CACHE, cdn.SharedCaches(30).pages, cdn.OPEN_FILE, "public, max-age=5"):
        told = cdn.for_readers(kept)
        assert "private" in told and "public" not in told and "s-maxage" not in told
    assert cdn.for_readers("") == cdn.for_readers("no-store") == "no-store"


def test_a_shared_cache_keeps_pages_only_where_that_is_set() -> None:
    assert cdn.SharedCaches().pages == "no-cache"
    assert cdn.SharedCaches(30).pages == "max-age=0, must-revalidate, s-maxage=30"
