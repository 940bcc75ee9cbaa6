"""The canonical view of a mirror: pages, files and the JSON API as the upstream itself has them."""

from __future__ import annotations

import hashlib
import html
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from tests.indexed_server import FILE, HTML, JSON, Got, at_once, get, make_indexes, upload
from tests.integration.test_offline import switch
from tests.server_process import Server, request
from tests.upstream import HTML_TYPE, JSON_TYPE, Answer, Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

VIEW = "/root/pypi/+canonical"
LOCAL = make_wheel("demo", "1.0+local")
WHEEL, NEWER, SDIST = make_wheel("demo", "1.0"), make_wheel("demo", "2.0"), make_sdist("demo", "1.0")
QUERIED = make_wheel("demo", "3.0")
DIRECTORY = "/packages/ab/cd/0123456789"
API = json.dumps({"info": {"name": "demo", "version": "2.0"}, "urls": [], "releases": {}}, indent=1).encode()


def path_of(made: Distribution) -> str:
    """The path of a file at the upstream, as its page spells it."""
    return f"{DIRECTORY}/{made.filename.replace('+', '%2B')}"


def page_of(upstream: Upstream) -> dict[str, Any]:
    """A page with every field that a modern index gives."""
    metadata = {"sha256": hashlib.sha256(WHEEL.metadata).hexdigest()}
    more: dict[str, dict[str, Any]] = {
        WHEEL.filename: {
            "core-metadata": metadata,
            "dist-info-metadata": metadata,
            "provenance": f"{upstream.url}/integrity/demo/1.0/{WHEEL.filename}/provenance",
            "gpg-sig": True,
            "acme-flag": {"kept": [True, None]},
        },
        NEWER.filename: {"yanked": 'broken <build> & "more"', "provenance": None},
        SDIST.filename: {"gpg-sig": False},
    }
    files = [
        {
            "filename": made.filename,
            "url": upstream.url + path_of(made) + ("?token=1&x=%2F" if made is QUERIED else ""),
            "hashes": {"sha256": made.sha256, "md5": hashlib.md5(made.content, usedforsecurity=False).hexdigest()},
            "requires-python": ">=3.8,<4",
            "size": len(made.content),
            "upload-time": "2024-01-02T03:04:05.678901Z",
            "yanked": False,
            **more.get(made.filename, {}),
        }
        for made in (WHEEL, NEWER, SDIST, LOCAL, QUERIED)
    ]
    return {
        "meta": {"api-version": "1.4", "tracks": ["https://example.com/simple/whole/"], "acme-serial": 7},
        "name": "demo",
        "versions": ["1.0", "1.0+local", "2.0", "3.0"],
        "project-status": {"status": "deprecated", "reason": 'Use "other" & <soon>'},
        "alternate-locations": ["https://example.org/simple/one/"],
        "acme-note": {"level": 3},
        "files": files,
    }


def written(page: Mapping[str, Any]) -> bytes:
    """The same page as HTML, as far as PEP 503, 592, 658, 714 and 740 have the fields."""
    rows = []
    for file in page["files"]:
        told = {"href": f"{file['url']}#sha256={file['hashes']['sha256']}", "data-requires-python": ">=3.8,<4"}
        for key in ("core-metadata", "dist-info-metadata"):
            if key in file:
                told[f"data-{key}"] = f"sha256={file[key]['sha256']}"
        if file["yanked"]:
            told["data-yanked"] = file["yanked"]
        if "gpg-sig" in file:
            told["data-gpg-sig"] = str(file["gpg-sig"]).lower()
        if file.get("provenance"):
            told["data-provenance"] = file["provenance"]
        attributes = " ".join(f'{name}="{html.escape(value)}"' for name, value in told.items())
        rows.append(f"<a {attributes}>{file['filename']}</a>")
    status = page["project-status"]
    metas = {
        "repository-version": page["meta"]["api-version"],
        "tracks": page["meta"]["tracks"][0],
        "alternate-locations": page["alternate-locations"][0],
        "project-status": status["status"],
        "project-status-reason": status["reason"],
    }
    head = "".join(f'<meta name="pypi:{name}" content="{html.escape(value)}">' for name, value in metas.items())
    return f"<!DOCTYPE html><html><head>{head}</head><body>{''.join(rows)}</body></html>".encode()


class Anchors(HTMLParser):
    """What an installer reads of an HTML page: of each file its address and attributes, and the meta elements."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("a", "meta"):
            self.found.append(dict(attrs))


@dataclass
class World:
    server: Server
    upstream: Upstream

    def get(self, path: str, headers: Mapping[str, str] = FILE, method: str = "GET") -> Got:
        return get(self.server.port, f"{VIEW}{path}", headers, method)

    def file(self, made: Distribution, suffix: str = "", method: str = "GET", **headers: str) -> Got:
        return self.get(f"/packages{path_of(made)}{suffix}", {**FILE, **headers}, method)

    def count(self, path: str) -> int:
        return self.upstream.count(path)


def serve(upstream: Upstream) -> None:
    upstream.ranges = True
    page = page_of(upstream)
    upstream.answers["/simple/demo/"] = lambda asked: (
        Answer(body=json.dumps(page).encode(), kind=JSON_TYPE, headers={"X-PyPI-Last-Serial": "42"})
        if JSON_TYPE in asked.headers.get("accept", "")
        else Answer(body=written(page), kind=HTML_TYPE)
    )
    for made in (WHEEL, NEWER, SDIST, LOCAL):
        upstream.answers[path_of(made)] = Answer(body=made.content)
    upstream.answers[f"{path_of(QUERIED)}?token=1&x=%2F"] = Answer(body=QUERIED.content)
    upstream.answers[f"{path_of(WHEEL)}.metadata"] = Answer(body=WHEEL.metadata)
    upstream.answers[f"{path_of(WHEEL)}.asc"] = Answer(body=b"signature")
    for path in ("/pypi/demo/json", "/pypi/demo/2.0/json"):
        upstream.answers[path] = Answer(body=API, kind="application/json", headers={"ETag": '"one"'})


@pytest.fixture(params=["nginx", "python"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    server = Server(tmp_path / "data")
    with Upstream() as upstream:
        serve(upstream)
        try:
            server.start("--front", request.param, "--request-timeout", "10")
            make_indexes(server.port, server.auth, upstream)
            yield World(server, upstream)
        finally:
            server.end()


def test_pages_are_those_of_the_upstream(world: World) -> None:
    page = page_of(world.upstream)
    got = world.get("/simple/demo/", JSON)
    assert got.status == 200
    assert got.headers["content-type"].startswith(JSON_TYPE)
    assert got.headers["x-pypi-last-serial"] == "42"
    assert json.loads(got.body) == page
    for spelled in ("/simple/Demo/", "/simple/demo"):
        assert json.loads(world.get(spelled, JSON).body) == page
    as_html = world.get("/simple/demo/", HTML)
    assert as_html.headers["content-type"].startswith("text/html")
    theirs = Anchors(written(page)).found
    ours = Anchors(as_html.body).found
    named = {name for found in theirs for name in found}
    # `data-size` and `data-upload-time` stand in no standard.
    assert [{name: value for name, value in found.items() if name in named} for found in ours] == theirs
    assert world.upstream.pages("demo") == 1
    assert world.get("/simple/missing/", JSON).status == 404


def test_files_are_found_by_the_path_of_the_upstream(world: World) -> None:
    assert world.get("/simple/demo/", JSON).status == 200
    for made in (NEWER, LOCAL, QUERIED, SDIST):
        got = world.file(made)
        assert (got.status, got.body) == (200, made.content), made.filename
        assert got.headers["cache-control"] == "max-age=365000000, immutable, public"
        assert world.file(made).body == made.content
        assert world.count(path_of(made).replace("%2B", "+")) == 1
    # The spellings of the same path, and a query, which is nobody's.
    for spelled in (LOCAL.filename, LOCAL.filename.replace("+", "%2B"), LOCAL.filename.replace("+", "%252B")):
        assert world.get(f"/packages{DIRECTORY}/{spelled}?x=1").body == LOCAL.content
    asked = {**FILE, "Accept": "application/json"}
    assert world.get(f"/packages{path_of(SDIST)}", asked).body == SDIST.content
    # It is the file at our own address.
    ours = "/root/pypi/+simple/demo/"
    (path,) = [
        file["url"]
        for file in json.loads(get(world.server.port, ours, JSON).body)["files"]
        if file["filename"] == SDIST.filename
    ]
    assert get(world.server.port, urljoin(ours, path), FILE).body == SDIST.content
    assert world.count(path_of(SDIST)) == 1


def test_a_host_is_compared_where_one_is_asked_for(world: World) -> None:
    assert world.get("/simple/demo/", JSON).status == 200
    host = urlsplit(world.upstream.url).netloc
    for _ in range(3):  # from the second on by nginx, where there is one
        assert world.get(f"/hosts/{host}{path_of(NEWER)}").body == NEWER.content
        assert world.get(f"/hosts/{host}{path_of(WHEEL)}.metadata").body == WHEEL.metadata
        assert world.get(f"/hosts/files.example.com{path_of(NEWER)}").status == 404
        assert world.get(f"/hosts/{host}:443{path_of(NEWER)}").status == 404


def test_a_file_that_the_upstream_has_replaced_is_the_new_one(tmp_path: Path) -> None:
    """Also where nginx has found the former one by its address."""
    server = Server(tmp_path / "data")
    with Upstream() as upstream:
        serve(upstream)
        try:
            server.start("--front", "nginx", "--request-timeout", "10")
            make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=0)
            world = World(server, upstream)
            for _ in range(3):
                assert world.get("/simple/demo/", JSON).status == 200
                assert world.file(NEWER).body == NEWER.content
            link = server.private / f"run/canonical/root/pypi/packages{path_of(NEWER)}"
            assert link.is_symlink() and link.read_bytes() == NEWER.content
            other = make_wheel("demo", "2.0", files={"other.py": "x"})
            page = page_of(upstream)
            page["files"][1]["hashes"] = {"sha256": other.sha256}
            upstream.answers["/simple/demo/"] = Answer(body=json.dumps(page).encode(), kind=JSON_TYPE)
            upstream.answers[path_of(NEWER)] = Answer(body=other.content)
            assert json.loads(world.get("/simple/demo/", JSON).body) == page
            assert not link.is_symlink()
            for _ in range(3):
                assert world.file(NEWER).body == other.content
            # Another upstream of the mirror has nothing of the former one.
            elsewhere = {"type": "mirror", "mirror_url": f"{upstream.url}/other/", "volatile": True}
            assert request(server.port, "PATCH", "/root/pypi", body=elsewhere, headers=server.auth)[0] == 200
            assert world.get("/simple/demo/", JSON).status == 404
            assert world.file(NEWER).status == 404
            assert not link.is_symlink()
        finally:
            server.end()


def test_the_upstreams_of_an_index_and_the_hosts_of_their_files(world: World) -> None:
    server, upstream = world.server, world.upstream

    def told(index: str) -> Any:
        return request(server.port, "GET", f"/+deployer/mirrored?index={index}")

    first = {"name": "root/pypi", "url": upstream.simple_url, "hosts": []}
    status, answer = told("root/dev")
    assert (status, answer["mirrors"]) == (200, [first])
    assert answer["default"].startswith("https://")
    files = [
        {"filename": made.filename, "url": f"https://{host}/{made.filename}", "hashes": {"sha256": made.sha256}}
        for made, host in ((WHEEL, "me:word@Files.example.com:443"), (NEWER, "cdn.example.com:8443"), (SDIST, "a b"))
    ]
    page = {"meta": {"api-version": "1.0"}, "name": "two", "files": files}
    upstream.answers["/simple/two/"] = Answer(body=json.dumps(page).encode(), kind=JSON_TYPE)
    assert world.get("/simple/two/", JSON).status == 200
    assert told("root/pypi")[1]["mirrors"] == [{**first, "hosts": ["cdn.example.com:8443", "files.example.com"]}]
    (server.private / "upstream/root/pypi/.hosts").unlink()  # as of data from before hosts were kept
    assert told("root/pypi")[1]["mirrors"][0]["hosts"] == ["cdn.example.com:8443", "files.example.com"]
    assert told("root/none")[0] == told("")[0] == 404


def test_a_file_of_a_page_that_nobody_asked_for_is_served(world: World) -> None:
    assert world.file(NEWER).body == NEWER.content
    assert world.upstream.pages("demo") == 1
    # Another path of the same name is not on the page; it is asked for once, and then known.
    for _ in range(2):
        assert world.get(f"/packages/other/{NEWER.filename}").status == 404
    assert world.upstream.pages("demo") == 1


def test_a_new_file_is_found_when_the_page_may_be_asked_for_again(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    with Upstream() as upstream:
        serve(upstream)
        try:
            server.start("--request-timeout", "10")
            make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=0)
            world = World(server, upstream)
            assert world.get("/simple/demo/", JSON).status == 200
            added = make_wheel("demo", "4.0")
            assert world.file(added).status == 404
            page = page_of(upstream)
            page["files"].append(
                {"filename": added.filename, "url": upstream.url + path_of(added), "hashes": {"sha256": added.sha256}}
            )
            upstream.answers["/simple/demo/"] = Answer(body=json.dumps(page).encode(), kind=JSON_TYPE)
            upstream.answers[path_of(added)] = Answer(body=added.content)
            assert world.file(added).body == added.content
        finally:
            server.end()


def test_metadata_signatures_heads_and_ranges(world: World) -> None:
    got = world.file(WHEEL, ".metadata")
    assert (got.status, got.body) == (200, WHEEL.metadata)
    assert world.file(WHEEL, ".asc").body == b"signature"
    assert world.file(SDIST, ".asc").status == 404
    # The page of the upstream promises none; it is there all the same.
    assert world.file(NEWER, ".metadata").body == NEWER.metadata
    head = world.file(SDIST, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(SDIST.content)))
    part = world.file(SDIST, Range="bytes=10-19")
    assert (part.status, part.body) == (206, SDIST.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(SDIST.content)}"
    last = world.file(SDIST, Range="bytes=-7")
    assert (last.status, last.body) == (206, SDIST.content[-7:])
    assert world.file(SDIST).body == SDIST.content
    # Now that it is here.
    here = world.file(SDIST, Range="bytes=10-19")
    assert (here.status, here.body) == (206, SDIST.content[10:20])
    assert world.file(SDIST, method="HEAD").headers["content-length"] == str(len(SDIST.content))
    assert world.get("/simple/demo/", HTML, "HEAD").body == b""


def test_of_two_hosts_with_one_path_the_first_of_the_page_counts(world: World) -> None:
    with Upstream() as other:
        other.answers["/same/two-1.0.tar.gz"] = Answer(body=b"\x1f\x8bother")
        world.upstream.answers["/same/two-1.0.tar.gz"] = Answer(body=b"\x1f\x8bfirst")
        hosts = (world.upstream.url, other.url)
        files = [{"filename": "two-1.0.tar.gz", "url": f"{host}/same/two-1.0.tar.gz", "hashes": {}} for host in hosts]
        page = {"meta": {"api-version": "1.0"}, "name": "two", "files": files}
        world.upstream.answers["/simple/two/"] = Answer(body=json.dumps(page).encode(), kind=JSON_TYPE)
        assert world.get("/packages/same/two-1.0.tar.gz").body == b"\x1f\x8bfirst"
        assert other.requests == ()


def test_the_json_api_comes_as_it_is_and_is_kept(world: World) -> None:
    for path in ("/pypi/demo/json", "/pypi/Demo/json", "/pypi/demo/2.0/json"):
        for _ in range(2):
            got = world.get(path)
            assert (got.status, got.body) == (200, API)
            assert got.headers["content-type"] == "application/json"
    assert world.count("/pypi/demo/json") == world.count("/pypi/demo/2.0/json") == 1
    for _ in range(2):
        assert world.get("/pypi/missing/json").status == 404
        assert world.get("/pypi/demo/9.0/json").status == 404
    assert world.count("/pypi/missing/json") == world.count("/pypi/demo/9.0/json") == 1
    world.upstream.answers["/pypi/login/json"] = Answer(body=b"<html>", kind="application/json")
    world.upstream.answers["/pypi/list/json"] = Answer(body=b"[]", kind="application/json")
    large = b" " * (33 << 20) + API
    world.upstream.answers["/pypi/large/json"] = Answer(body=large, kind="application/json", compressed=True)
    for name in ("login", "list", "large"):
        assert world.get(f"/pypi/{name}/json").status == 502
    gathered = at_once(world.server.port, [(f"{VIEW}/pypi/once/json", FILE)] * 8)
    assert {got.status for got in gathered} == {404}
    assert world.count("/pypi/once/json") == 1


def test_what_is_known_stays_while_the_upstream_does_not_answer(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    with Upstream(keep_alive=False) as upstream:
        serve(upstream)
        try:
            server.start("--request-timeout", "10")
            make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=0)
            world = World(server, upstream)
            assert world.get("/simple/demo/", JSON).status == 200
            for _ in range(2):
                assert world.get("/pypi/demo/json").body == API
            assert [asked.headers.get("if-none-match") for asked in upstream.requests if "/pypi/" in asked.path] == [
                None,
                '"one"',
            ]
            upstream.stop()
            assert json.loads(world.get("/simple/demo/", JSON).body) == page_of(upstream)
            assert world.get("/pypi/demo/json").body == API
            assert world.get("/simple/unknown/", JSON).status == 502
            assert world.get("/pypi/unknown/json").status == 502
            upstream.start()
        finally:
            server.end()


def test_offline_it_has_what_is_here(world: World) -> None:
    server, upstream = world.server, world.upstream
    assert world.get("/simple/demo/", JSON).status == 200
    assert world.file(SDIST).status == 200
    assert world.file(WHEEL).status == 200
    assert world.file(WHEEL, ".metadata").status == 200
    assert world.get("/pypi/demo/json").status == 200
    assert switch(server, offline=True) == 200
    upstream.forget()
    for _ in range(2):
        page = json.loads(world.get("/simple/demo/", JSON).body)
        assert [file["filename"] for file in page["files"]] == [WHEEL.filename, SDIST.filename]
        assert page["files"][0] == page_of(upstream)["files"][0]
        assert world.file(SDIST).body == SDIST.content
        assert world.file(WHEEL, ".metadata").body == WHEEL.metadata
        assert world.file(NEWER).status == 502
        assert world.get(f"/packages/other/{NEWER.filename}").status == 502
        assert world.get("/pypi/demo/json").body == API
        assert world.get("/pypi/demo/2.0/json").status == 404
        assert world.get("/simple/unknown/", JSON).status == 404
        server.send(signal.SIGKILL)
        server.start()
    assert upstream.requests == ()


def test_only_mirrors_have_it(world: World) -> None:
    server, auth = world.server, world.server.auth
    ordered = {"type": "ordered", "bases": ["root/pypi"], "volatile": True}
    assert request(server.port, "PUT", "/root/ordered", body=ordered, headers=auth)[0] == 200
    assert upload(server, auth, "root/dev", make_wheel("demo", "5.0")) == 200
    for index in ("root/dev", "root/ordered"):
        for path in ("simple/demo/", f"packages{path_of(WHEEL)}", "pypi/demo/json", "nothing"):
            got = get(server.port, f"/{index}/+canonical/{path}", JSON)
            assert got.status == 404
            assert b"is no mirror" in got.body
    assert get(server.port, "/root/none/+canonical/simple/demo/", JSON).status == 404
    for method in ("PUT", "POST", "DELETE"):
        assert request(server.port, method, f"{VIEW}/simple/demo/", headers=auth)[0] == 405


def test_a_mirror_of_another_form_has_no_json_api(world: World) -> None:
    body = {"type": "mirror", "mirror_url": f"{world.upstream.url}/root/+simple/", "mirror_no_project_list": True}
    assert request(world.server.port, "PUT", "/root/other", body=body, headers=world.server.auth)[0] == 200
    got = get(world.server.port, "/root/other/+canonical/pypi/demo/json", JSON)
    assert got.status == 404
    assert b"/simple/" in got.body
    assert world.upstream.requests == ()


def test_hostile_paths_lead_nowhere(world: World) -> None:
    server = world.server
    (server.private / "stolen-1.0.tar.gz").write_bytes(b"secret")
    (server.private / "stolen-1.0.tar.gz.asc").write_bytes(b"secret")
    assert world.file(WHEEL, ".metadata").status == 200  # so that there is a directory to lead out of
    up = ("../" * 5, "%2e%2e/" * 5, "..%2f" * 5, "%252e%252e/" * 5)
    inside = [f"{root}.deployer/stolen-1.0.tar.gz{suffix}" for root in up for suffix in ("", ".asc")]
    paths = [
        *(f"/packages/{path}" for path in inside),
        *(f"/packages{DIRECTORY}/{path}" for path in inside),
        f"/packages/https://example.com{DIRECTORY}/{SDIST.filename}",
        f"/packages//example.com{DIRECTORY}/{SDIST.filename}",
        f"/packages{DIRECTORY}/{SDIST.filename}/",
        f"/packages{DIRECTORY}/%00{SDIST.filename}",
        f"/packages{DIRECTORY}/x%0a{SDIST.filename}",
        f"/packages/{'a/' * 5000}{SDIST.filename}",
        f"/packages/{'a-' * 5000}1.0.tar.gz",
        f"/packages/{'a-' * 100}1.0.tar.gz",
        "/packages/",
        "/packages/%ff-1.0.tar.gz",
        "/simple/",
        "/simple/..%2f..%2fdemo/",
        "/simple/.url/",
        f"/simple/{'a' * 200}/",
        "/pypi/.json/json",
        "/pypi/demo/..%2f..%2f..%2fsecret/json",
        "/pypi/demo/%2e%2e/json",
        "/pypi/demo/2.0%3fx=1/json",
        f"/pypi/demo/{'1' * 200}/json",
        "/",
        "",
    ]
    world.upstream.forget()
    for path in paths:
        got = world.get(path)
        assert 400 <= got.status < 500, (path, got.status)
        assert b"secret" not in got.body
    # Our own addresses: what belongs to a file is looked up on the disk, too.
    for root in up:
        for base in ("+f", "+e"):
            got = get(server.port, f"/root/pypi/{base}/{root}.deployer/stolen-1.0.tar.gz.asc", FILE)
            assert got.status >= 400
            assert b"secret" not in got.body
    assert all(urlsplit(asked.target).path.startswith("/simple/") for asked in world.upstream.requests)
    assert "Traceback" not in server.output
