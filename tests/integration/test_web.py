"""Pages for browsers, by raw requests to a real server: what they show, what they never do, and who gets them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from deployer.server.web import site
from tests.indexed_server import FILE, HTML, JSON, Got, get, make_indexes, upload
from tests.server_process import Server, request
from tests.upstream import JSON_TYPE, Answer, Upstream, make_sdist, make_wheel
from tests.web_pages import BROWSER, described, page

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

LARGEST = 100_000
"""Bytes of a page as it is sent."""
README = """# Demo

A **good** library. <script>alert(1)</script> ![badge](https://spy.example.com/b.svg) [x](javascript:alert(1))
"""
DEMO = [
    described("demo", version, README, requires=("other>=1", 'numpy; extra == "fast"'))
    for version in ("1.0", "1.1", "2.0")
]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7777*7 }}",
    "../../etc/passwd",
    "%00",
    "a" * 250,
]


@dataclass
class World:
    server: Server
    upstream: Upstream
    auth: dict[str, str]

    def page(self, path: str, **more: str) -> Got:
        return page(self.server.port, path, **more)

    def shows(self, path: str, *texts: str, part: str = "") -> str:
        """The page once it shows all of ``texts`` after ``part``; uses are written every few seconds."""
        deadline = time.monotonic() + 60
        while True:
            shown = check(self.page(path))
            after = shown.partition(part)[2] if part else shown
            if all(text in after for text in texts):
                return shown
            assert time.monotonic() < deadline, (path, texts)
            time.sleep(0.2)

    def text(self, path: str) -> str:
        got = self.page(path)
        assert got.status == 200, (path, got.status)
        return got.body.decode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    upstream = Upstream([*DEMO, make_sdist("demo", "2.0"), make_wheel("other", "1.0")], core_metadata=True)
    server = Server(tmp_path_factory.mktemp("web") / "server")
    with upstream:
        server.start()
        try:
            auth = server.auth
            make_indexes(server.port, auth, upstream)
            assert upload(server, auth, "root/dev", described("acme-tool", "1.0", "# Acme\n\nOurs.")) == 200
            yield World(server, upstream, auth)
        finally:
            server.end()
            assert upstream.lists == 0, "the list of all names was asked for"


class Checked(HTMLParser):
    """What every page must be: no script or style in it, and nothing from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert tag != "style" and "style" not in found and not any(name.startswith("on") for name in found), (
            tag,
            found,
        )
        assert tag != "script" or found.get("src"), "a script in the page"
        for name in ("src", "action") + (("href",) if tag == "link" else ()):
            assert not re.match(r"[a-z]+:|//", found.get(name) or ""), (tag, found)
        self.ids += [found["id"] or ""] if "id" in found else []


def check(got: Got) -> str:
    """A page as it must be; its text."""
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["content-security-policy"] == site.POLICY
    assert "unsafe" not in site.POLICY and got.headers["x-content-type-options"] == "nosniff"
    assert len(gzip.compress(got.body)) < LARGEST
    parser = Checked()
    parser.feed(text := got.body.decode())
    assert len(parser.ids) == len(set(parser.ids))
    return text


def test_the_first_page_says_what_this_is_and_how_to_use_it(world: World) -> None:
    text = world.shows("/", "acme-tool")
    address = f"http://127.0.0.1:{world.server.port}/root/dev/+simple/"
    assert f"pip config set global.index-url {address}" in text and f"UV_DEFAULT_INDEX={address}" in text
    assert "trusted-host" not in text


def test_a_project_that_nobody_asked_for_is_looked_up_at_its_upstream(world: World) -> None:
    world.upstream.forget()
    text = check(world.page("/root/dev/demo"))
    assert world.upstream.pages("demo") == 1 and world.upstream.files(DEMO[-1].filename) == 0
    assert "A <strong>good</strong> library." in text and "spy.example.com" not in text
    assert "+simple/ demo</pre>" in text and "root/pypi" in text
    assert 'href="../../root/dev/other"' in text and "Extra fast" in text
    assert "2.0" in text and "1.1" in text and DEMO[-1].sha256[:16] in text
    older = check(world.page("/root/dev/demo/1.0"))
    assert "demo==1.0" in older and "The latest version is" in older
    assert world.upstream.pages("demo") == 1


def test_a_file_that_is_stored_is_said_to_be(world: World) -> None:
    text = check(world.page("/root/pypi/other"))
    assert "stored here" not in text
    (path,) = re.findall(r'href="\.\./\.\./(root/pypi/\+f/[^"]+\.whl)"', text)
    assert get(world.server.port, f"/{path}", FILE).status == 200
    world.shows("/root/pypi/other", "stored here")


def test_an_upload_has_a_page(world: World) -> None:
    text = check(world.page("/root/dev/acme-tool/"))
    assert "<h3>Acme</h3>" in text and "stored here" in text
    assert check(world.page("/root/dev")).count("acme-tool") == 2  # address and name


def test_a_search_is_of_what_is_here_and_asks_nobody(world: World) -> None:
    world.upstream.forget()
    text = check(world.page("/+web/search?q=ACME_t"))
    assert 'href="../root/dev/acme-tool"' in text and 'href="../root/dev/acme-t"' in text
    part = world.page("/+web/search?q=acme", **{"HX-Request": "true"}).body.decode()
    assert "acme-tool" in part and "<html" not in part and "<form" not in part
    assert world.upstream.requests == ()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text(world: World, text: str) -> None:
    from urllib.parse import quote

    for path in (f"/+web/search?q={quote(text)}", f"/root/dev/{quote(text, safe='')}", f"/{quote(text, safe='')}"):
        got = world.page(path)
        assert got.status in (200, 400, 404), path
        if got.headers.get("content-security-policy") == site.POLICY:  # of more segments than ours: devpi's
            shown = check(got)
            assert "<script>alert" not in shown and "<img src=x" not in shown and "54439" not in shown.split("<main")[1]
    assert world.upstream.count("/etc/passwd") == 0


def test_what_an_upstream_says_is_text(world: World) -> None:
    evil = make_wheel("evil", "1.0")
    name = 'evil-1.0-<b>"x-none-any.whl'
    files = [
        {
            "filename": found,
            "url": f"{world.upstream.url}/files/{evil.filename}",
            "hashes": {"sha256": evil.sha256},
            "requires-python": "<script>alert(1)</script>",
            "yanked": "<script>alert(1)</script>",
            "upload-time": "<b>",
        }
        for found in (evil.filename, name)
    ]
    body = {"meta": {"api-version": "1.1"}, "name": "evil", "files": files}
    body["project-status"] = {"status": "<script>alert(1)</script>", "reason": "<b>"}
    world.upstream.answers["/simple/evil/"] = Answer(body=json.dumps(body).encode(), kind=JSON_TYPE)
    text = check(world.page("/root/pypi/evil"))
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text and "<b>" not in text


def test_twenty_thousand_files_make_a_small_page(world: World) -> None:
    files = [
        {"filename": f"huge-{major}.{minor}-{tag}.whl", "url": f"{world.upstream.url}/files/{major}.{minor}-{tag}.whl"}
        | {"hashes": {"sha256": hashlib.sha256(f"{major}.{minor}{tag}".encode()).hexdigest()}}
        for major in range(10)
        for minor in range(10)
        for tag in (f"cp3{number}-cp3{number}-any" for number in range(200))
    ]
    body = {"meta": {"api-version": "1.1"}, "name": "huge", "files": files}
    world.upstream.answers["/simple/huge/"] = Answer(body=json.dumps(body).encode(), kind=JSON_TYPE)
    text = check(world.page("/root/pypi/huge"))
    assert len(text) < LARGEST and "140 more" in text and "1 to 30 of 100" in text
    assert ">9.9<" not in check(world.page("/root/pypi/huge?from=30")).split("Versions</h2>")[1]


def test_activity_shows_requests_upstreams_and_the_disk(world: World) -> None:
    get(world.server.port, "/root/dev/+simple/acme-tool/", JSON)
    world.shows("/+web/activity", "acme-tool</a>", part='id="disk"')
    text = world.shows("/+web/activity", "GET /root/dev/+simple/acme-tool/")
    assert f"127.0.0.1:{world.upstream.port}" in text and "192.0.2" not in text
    assert "<polyline" in text and "The numbers of bytes" in text and text.count("<svg") > 2
    assert all(check(world.page(f"/+web/activity?days={days}")) for days in ("7", "90", "12", "x"))
    part = world.page("/+web/activity", **{"HX-Request": "true"}).body.decode()
    assert part.lstrip().startswith("<div") and "/+web/" not in part and "<h1" not in part


def test_what_is_not_there_is_said_with_404(world: World) -> None:
    world.upstream.forget()
    text = check(got := world.page("/root/dev/acme-tol"))
    assert got.status == 404 and 'href="../../root/dev/acme-tool"' in text
    assert world.upstream.pages("acme-tol") == 1
    for path in ("/nobody", "/root/nothing", "/root/nothing/demo", "/root/dev/demo/99", "/+web/nothing"):
        got = world.page(path)
        check(got)
        assert got.status == 404, path


def test_an_upstream_that_does_not_answer_is_named_and_known_projects_stay(world: World) -> None:
    check(world.page("/root/pypi/other"))
    world.upstream.faults.status = 503
    try:
        got = world.page("/root/pypi/unseen")
        assert got.status == 503 and "does not answer" in check(got) and got.headers["retry-after"] == "1"
        assert world.page("/root/pypi/other").status == 200
    finally:
        world.upstream.faults.status = 0


def test_the_address_is_the_one_that_the_browser_used(world: World) -> None:
    text = world.page("/", Host=f"localhost:{world.server.port}").body.decode()
    assert f"http://localhost:{world.server.port}/root/dev/+simple/" in text
    # nginx passes on none of these, so nobody is made to copy the address of another host.
    named = {"X-Forwarded-Host": "evil.example.com", "X-Outside-URL": "https://evil.example.com/x"}
    assert b"evil.example.com" not in world.page("/", **named).body
    assert world.page("/", Host="evil.example.com").status == 421


def test_files_of_ours_are_shipped_and_kept_by_browsers(world: World) -> None:
    text = check(world.page("/root/dev/demo"))
    found = re.findall(r'(?:src|href)="\.\./\.\./(\+web/static/[^"]+)"', text)
    assert {path.partition("?")[0].rpartition("/")[2] for path in found} == {
        *("htmx.min.js", "web.js", "web.css", "icon.svg")
    }
    total = 0
    for path in set(found):
        got = world.page(f"/{path}", **{"Accept": "*/*", "Accept-Encoding": "gzip"})
        assert got.status == 200 and "immutable" in got.headers["cache-control"]
        total += len(got.body)
    assert total < 30_000
    assert "immutable" not in world.page("/+web/static/web.css").headers["cache-control"]
    for name in ("nothing.js", "htmx-LICENSE.txt", "..%2f..%2fplugin.py"):
        assert world.page(f"/+web/static/{name}").status == 404


API = [
    ("/", {"Accept": "application/json"}),
    ("/", {"Accept": "*/*"}),
    ("/", {}),
    ("/root/dev", {"Accept": "application/json"}),
    ("/root/dev?no_projects=", {"Accept": "*/*", "User-Agent": "curl/8.0"}),
    ("/root/pypi/demo", {"Accept": "application/json"}),
    ("/root/pypi/demo/", HTML),
    ("/root/dev/demo/", JSON),
    ("/root/dev/+simple/demo/", HTML),
    ("/root/dev/+simple/demo/", JSON),
    ("/root/dev/+simple/demo/", BROWSER),
    ("/root/dev/+simple/none/", JSON),
    ("/+api", BROWSER),
    ("/+status", BROWSER),
    ("/root/dev/none", {"Accept": "application/json"}),
]


def test_clients_of_the_index_get_what_they_get_without_pages(world: World, tmp_path: Path) -> None:
    without = Server(tmp_path / "server")
    without.start("--web", "off")
    try:
        auth = without.auth
        make_indexes(without.port, auth, world.upstream)
        assert upload(without, auth, "root/dev", described("acme-tool", "1.0", "# Acme\n\nOurs.")) == 200
        for path, headers in API:
            ours, theirs = (get(server.port, path, headers) for server in (world.server, without))
            kind = ours.headers.get("content-type")
            assert (ours.status, kind) == (theirs.status, theirs.headers.get("content-type")), (path, headers)
            if path != "/+status":  # it counts
                assert _plain(ours) == _plain(theirs), (path, headers)
        assert "html" not in get(without.port, "/", BROWSER).headers["content-type"]
        assert get(without.port, "/root/dev", {**BROWSER, "Accept": "text/html"}).status == 404
        assert get(without.port, "/+web/static/web.css", BROWSER).status == 404
    finally:
        without.end()


def _plain(got: Got) -> object:
    """A body without what differs between any two servers: times, ports, identities, serials, and the order of sets."""
    text = re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^\"<]*", b"", got.body)
    text = re.sub(rb"127\.0\.0\.1:\d+|[0-9a-f]{32}|\d{3,}(?:\.\d+)?|/tmp/[^\"]+", b"0", text)
    return _sorted(json.loads(text)) if "json" in got.headers["content-type"] else text


def _sorted(found: object) -> object:
    if isinstance(found, dict):
        return {key: _sorted(value) for key, value in found.items()}
    return sorted(map(_sorted, found), key=repr) if isinstance(found, list) else found


def test_pages_of_browsers_and_of_installers_never_mix(world: World) -> None:
    address = "/root/dev/+simple/demo/"
    before = get(world.server.port, address, JSON).body
    for path in ("/root/dev/demo", "/root/dev/demo/", address):
        world.page(path)
    assert get(world.server.port, address, JSON).body == before
    assert get(world.server.port, "/root/dev/demo/", JSON).headers["content-type"].startswith(JSON_TYPE)


def test_a_rule_says_what_it_holds_back_and_an_owner_is_named(world: World) -> None:
    told = {"type": "mirror", "mirror_url": world.upstream.simple_url, "mirror_no_project_list": True}
    told["deny"] = ["demo>=2"]
    ordered = {"type": "ordered", "bases": ["root/ruled", "root/pypi"], "owns": ["root/ruled:demo*"]}
    for index, body in (("root/ruled", told), ("root/team", ordered)):
        assert request(world.server.port, "PUT", f"/{index}", body=body, headers=world.auth)[0] == 200
    try:
        text = check(world.page("/root/team/demo"))
        assert "Held back by rules" in text and DEMO[-1].filename in text and "rule deny of root/ruled" in text
        assert "<dd>root/ruled, by a rule of root/team" in text and "1.1" in text
        assert "<code>demo*</code>" in check(world.page("/root/team"))
    finally:
        for index in ("root/team", "root/ruled"):
            request(world.server.port, "DELETE", f"/{index}", headers=world.auth)


def test_an_offline_server_says_so_and_asks_nobody(world: World) -> None:
    from tests.integration.test_offline import switch

    switch(world.server, offline=True)
    try:
        world.upstream.forget()
        assert "offline" in check(world.page("/"))
        assert world.page("/root/pypi/never-seen").status == 404
        assert world.upstream.requests == ()
    finally:
        switch(world.server, offline=False)


def test_a_prefix_and_https_of_a_proxy_before_it_are_in_every_address(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        server.start("--outside-url", "https://pypi.example.com/devpi", "--front", "python")
        try:
            make_indexes(server.port, server.auth, upstream)
            for path in ("/devpi/", "/"):  # a proxy may or may not take the prefix away
                text = page(server.port, path).body.decode()
                assert "https://pypi.example.com/devpi/root/dev/+simple/" in text
            text = page(server.port, "/devpi/root/dev/demo").body.decode()
            assert "--index-url https://pypi.example.com/devpi/root/dev/+simple/ demo" in text
        finally:
            server.end()
