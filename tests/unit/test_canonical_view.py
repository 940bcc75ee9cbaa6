"""The canonical view of a mirror without a server: its addresses, its pages, and what is kept of the JSON API."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer.server.mirrors import json_api
from deployer.server.mirrors.canonical import ApiAddress, FileAddress, PageAddress, address_of, find, part
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.json_api import JsonApi
from deployer.server.mirrors.page import ATTRIBUTES, File, Page
from deployer.server.mirrors.render import to_json
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.store import Head, Kept, UpstreamPages
from deployer.server.upstream.client import NoAnswer

ROOT = "/root/pypi/+canonical"
URL = "https://index.example/simple/"
PAGE = f"{URL}demo/"
NAME = "demo-1.0+local-py3-none-any.whl"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/simple/demo/", PageAddress("demo")),
        ("/simple/De_Mo", PageAddress("de-mo")),
        ("/packages/packages/ab/demo-1.0.whl", FileAddress("/packages/ab/demo-1.0.whl", "")),
        ("/packages/ab/demo-1.0.whl.metadata", FileAddress("/ab/demo-1.0.whl", ".metadata")),
        ("/packages/demo-1.0.tar.gz.asc", FileAddress("/demo-1.0.tar.gz", ".asc")),
        ("/packages//ab//demo-1.0.whl", FileAddress("//ab//demo-1.0.whl", "")),
        ("/pypi/Demo/json", ApiAddress("demo", "")),
        ("/pypi/demo/1!1.0+local.1/json", ApiAddress("demo", "1!1.0+local.1")),
    ],
)
def test_addresses_are_read(path: str, address: object) -> None:
    assert address_of(f"{ROOT}{path}") == ("root/pypi", address)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/simple/",
        "/simple/../",
        "/simple/.url/",
        "/simple/demo/x",
        "/simple/demo\n/",
        "/simple/" + "a" * 101,
        "/packages/",
        "/pypi/demo",
        "/pypi/demo/1.0",
        "/pypi/../json",
        "/pypi/demo/../json",
        "/pypi/demo/1.0?/json",
        "/pypi/demo/" + "1" * 101 + "/json",
        "/pypi/demo/1.0/2.0/json",
    ],
)
def test_other_addresses_name_nothing(path: str) -> None:
    assert address_of(f"{ROOT}{path}") == ("root/pypi", None)


@pytest.mark.parametrize("path", ["/root/pypi/+simple/demo/", "/root/pypi/+canonical", "/root/+canonical/simple/demo/"])
def test_other_paths_are_in_no_canonical_view(path: str) -> None:
    assert address_of(path) is None


@pytest.mark.parametrize(
    ("mirror", "url"),
    [
        (URL, "https://index.example/pypi/demo/1%211.0%2Blocal/json"),
        ("https://index.example/a/b/simple/", "https://index.example/a/b/pypi/demo/1%211.0%2Blocal/json"),
        ("https://index.example/root/+simple/", None),
        ("https://index.example/my-simple/", None),
        ("https://index.example/", None),
    ],
)
def test_the_json_api_stands_beside_the_pages(mirror: str, url: str | None) -> None:
    assert ApiAddress("demo", "1!1.0+local").url(mirror) == url


def kept_of(*urls: str, name: str = NAME) -> Kept:
    files: list[File] = [{"filename": name, "url": url, "hashes": {}} for url in urls]
    head = Head(mirror=URL, url=PAGE, etag="", modified="", serial="", files=len(files), fields={})
    return Kept(head, 0.0, Page.of({}, files).lines)


def found(kept: Kept, path: str) -> str | None:
    address = address_of(f"{ROOT}/packages{path}")
    assert address is not None
    assert isinstance(address[1], FileAddress)
    file = find(kept, address[1])
    return None if file is None else file["url"]


def test_a_file_is_found_by_its_path_in_both_spellings() -> None:
    url = f"https://files.example/a%20b/{NAME.replace('+', '%2B')}?token=1"
    kept = kept_of(url)
    assert found(kept, f"/a b/{NAME}") == url
    assert found(kept, f"/a%20b/{NAME.replace('+', '%2B')}") == url
    for other in (f"/{NAME}", f"/a b/../a b/{NAME}", f"/files.example/a b/{NAME}", f"//files.example/a b/{NAME}"):
        assert found(kept, other) is None


def test_the_first_of_two_hosts_counts_and_an_invalid_address_is_nobodys() -> None:
    first, second = f"https://one.example/a/{NAME}", f"https://two.example/a/{NAME}"
    assert found(kept_of(first, second), f"/a/{NAME}") == first
    assert found(kept_of(f"https://[x/a/{NAME}", second), f"/a/{NAME}") == second


def test_a_page_has_the_addresses_of_the_upstream() -> None:
    url = f"https://files.example/a/{NAME}?token=1"
    told: File = {"filename": NAME, "url": url, "hashes": {"md5": "0" * 32}, "provenance": None, "x": [1]}
    files = [
        {**told, ATTRIBUTES: {"data-x": "1"}},
        {**told, "provenance": "/integrity/x"},
        {**told, "provenance": "https://[x/"},
        {**told, "core-metadata": False},
    ]
    fields = {"meta": {"api-version": "1.3", "x": 1}, "name": "demo", "versions": ["1.0+local"]}
    provenance = "https://index.example/integrity/x"
    expected = [told, {**told, "provenance": provenance}, {**told, "provenance": "https://[x/"}, files[3]]
    page = json.loads(to_json(part(Page.of(fields, files), PAGE), ""))
    assert page == {**fields, "files": expected}


# The JSON API


class Asked:
    """An upstream, as the source asks it."""

    def __init__(self) -> None:
        self.answer: httpx.Response | None = httpx.Response(404)
        self.asked: list[tuple[str, dict[str, str]]] = []

    def ask(self, _mirror: Mirror, url: str, headers: dict[str, str]) -> httpx.Response:
        self.asked.append((url, headers))
        if self.answer is None:
            raise NoAnswer("timeout")
        return self.answer

    def alone(self, _answer: httpx.Response) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


MIRROR = Mirror("root/pypi", URL, expiry=1800.0, credentials=None)
DEMO = ApiAddress("demo", "1.0")
BODY = b'{\n "info": {}}\n'
KEPT = Path("root/pypi/.json/demo==1.0")

Make = Callable[..., tuple[JsonApi, Asked]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(*, offline: bool = False, **rules: Any) -> tuple[JsonApi, Asked]:
        source: Any = Asked()
        return JsonApi(UpstreamPages(tmp_path), source, MirrorRules(**rules), offline=lambda: offline), source

    return made


def age(tmp_path: Path) -> None:
    os.utime(tmp_path / KEPT, (0, 0))


def test_a_page_is_kept_over_a_restart_and_confirmed(make: Make, tmp_path: Path) -> None:
    api, upstream = make()
    upstream.answer = httpx.Response(200, content=BODY, headers={"ETag": '"1"', "Last-Modified": "then"})
    assert not api.is_fresh(MIRROR, DEMO)
    assert api.get(MIRROR, DEMO) == BODY
    assert (tmp_path / KEPT).stat().st_mode & 0o777 == 0o600
    api, upstream = make()
    assert api.is_fresh(MIRROR, DEMO)
    assert api.get(MIRROR, DEMO) == api.known(MIRROR, DEMO) == BODY
    assert upstream.asked == []
    age(tmp_path)
    upstream.answer = httpx.Response(304)
    for _ in range(2):
        assert api.get(MIRROR, DEMO) == BODY
    conditions = {"Accept": "application/json", "If-None-Match": '"1"', "If-Modified-Since": "then"}
    assert upstream.asked == [("https://index.example/pypi/demo/1.0/json", conditions)]
    # The page of another upstream is another page.
    assert api.known(Mirror("root/pypi", "https://other.example/simple/", 1800.0, None), DEMO) is None


def test_a_page_stays_while_the_upstream_does_not_answer(make: Make, tmp_path: Path) -> None:
    api, upstream = make()
    upstream.answer = httpx.Response(200, content=BODY)
    api.get(MIRROR, DEMO)
    invalid = [httpx.Response(200, content=content) for content in (b"<html>", b"[]", b"[" * 100_000, b"")]
    for answer in (None, httpx.Response(503), *invalid):
        api, upstream = make()
        upstream.answer = answer
        age(tmp_path)
        for _ in range(2):  # the second time it is not asked
            assert api.get(MIRROR, DEMO) == BODY
            with pytest.raises(NoAnswer):
                api.get(MIRROR, ApiAddress("other", ""))
        assert len(upstream.asked) == 2


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("keep", [False, True])
def test_a_page_that_the_upstream_deleted(make: Make, tmp_path: Path, status: int, *, keep: bool) -> None:
    api, upstream = make(keep_deleted=keep)
    upstream.answer = httpx.Response(200, content=BODY)
    api.get(MIRROR, DEMO)
    age(tmp_path)
    upstream.answer = httpx.Response(status)
    for _ in range(2):
        assert api.get(MIRROR, DEMO) == (BODY if keep else b"")
    assert len(upstream.asked) == 2
    assert (tmp_path / KEPT).exists() is keep


def test_what_is_missing_is_asked_for_again_after_its_time(make: Make) -> None:
    for seconds, asked in ((60.0, 1), (0.0, 3)):
        api, upstream = make(not_found_expiry=seconds)
        assert [api.get(MIRROR, DEMO) for _ in range(3)] == [b""] * 3
        assert len(upstream.asked) == asked


def test_offline_nobody_is_asked(make: Make, tmp_path: Path) -> None:
    api, upstream = make()
    upstream.answer = httpx.Response(200, content=BODY)
    api.get(MIRROR, DEMO)
    age(tmp_path)
    api, upstream = make(offline=True)
    assert api.get(MIRROR, DEMO) == BODY
    assert api.get(MIRROR, ApiAddress("other", "")) == b""
    assert upstream.asked == []


def test_names_that_nobody_has_take_bounded_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_api, "REMEMBERED", 10)
    api, upstream = make()
    for number in range(11):
        api.get(MIRROR, ApiAddress(f"x{number}", ""))
    upstream.asked.clear()
    api.get(MIRROR, ApiAddress("x10", ""))
    assert upstream.asked == []
    api.get(MIRROR, ApiAddress("x0", ""))
    assert len(upstream.asked) == 1


def test_a_damaged_file_is_no_page(make: Make, tmp_path: Path) -> None:
    api, upstream = make()
    upstream.answer = httpx.Response(200, content=BODY)
    api.get(MIRROR, DEMO)
    for damaged in (b"", b"{}\n{}", b"null\n{}", b"\xff"):
        (tmp_path / KEPT).write_bytes(damaged)
        assert api.get(MIRROR, DEMO) == BODY
    # Where nothing can be kept, clients get it all the same.
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").write_text("no directory")
    assert api.get(MIRROR, DEMO) == BODY
