"""An installer does the same through us as with the upstream itself, whatever the upstream sends."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.indexed_server import FILE, JSON, Got, get, make_indexes
from tests.integration.installers import install
from tests.pages import file_of, html_page, json_page, row
from tests.server_process import Server, request
from tests.upstream import HTML_TYPE, JSON_TYPE, Answer, Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

INSTALLERS = {"pip": (), "uv": ()}
SECONDS = 10.0
"""How long the server may need to see a change of its upstream. A mirror's pages are good for one second here."""
JSON_LATEST, HTML_V1 = "application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.v1+html"
LONG_AGO, LATELY = "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Lab:
    """A server of ours, with ``root/dev`` on ``root/pypi`` on a scripted upstream."""

    server: Server
    upstream: Upstream

    def put(self, made: Distribution, path: str = "", **more: object) -> str:
        """Serve a file; its path."""
        where = path or f"/files/{made.filename}"
        self.upstream.answers[where] = replace(Answer(body=made.content), **more)  # type: ignore[arg-type]
        return where

    def page(self, project: str, answer: Answer) -> None:
        self.upstream.answers[f"/simple/{project}/"] = answer

    def wheels(self, project: str, *versions: str) -> list[Distribution]:
        """Wheels, served below ``/files/``."""
        made = [make_wheel(project, version) for version in versions]
        for wheel in made:
            self.put(wheel)
        return made

    def ours(self, index: str = "root/dev") -> str:
        return f"http://127.0.0.1:{self.server.port}/{index}/+simple/"

    def compare(
        self,
        *words: str,
        index: str = "root/dev",
        upstream: Upstream | None = None,
        options: dict[str, Sequence[str]] | None = None,
    ) -> set[str]:
        """Install both ways; what each installer left when the upstream itself was asked."""
        found = install((upstream or self.upstream).simple_url, self.ours(index), words, options or INSTALLERS)
        for name, (direct, ours) in found.items():
            assert ours == direct, f"{name}, direct: {direct.told}\n{name}, ours: {ours.told}"
        return set().union(*(direct.versions for direct, _ in found.values()))

    def fails(self, *words: str, index: str = "root/dev") -> None:
        """Nobody can install it, from the upstream or from us."""
        assert self.compare(*words, index=index) == set()

    # What becomes of our page

    def status(self, project: str, index: str = "root/dev") -> int:
        return get(self.server.port, f"/{index}/+simple/{project}/", JSON).status

    def names(self, project: str, index: str = "root/dev", **headers: str) -> list[str]:
        """The files on our page. ``headers``: names with ``_`` for ``-``."""
        sent = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        got = get(self.server.port, f"/{index}/+simple/{project}/", sent)
        return [file["filename"] for file in json.loads(got.body)["files"]] if got.status == 200 else []

    def hashes(self, project: str) -> list[set[str]]:
        """The kinds of hashes that our page has of each file."""
        got = get(self.server.port, f"/root/dev/+simple/{project}/", JSON)
        return [set(file["hashes"]) for file in json.loads(got.body)["files"]]

    def file(self, made: Distribution, index: str = "root/dev") -> bytes:
        """What we send for a file that stands on our page."""
        return self.got(made, index).body

    def got(self, made: Distribution, index: str = "root/dev", suffix: str = "") -> Got:
        """Our answer for a file that stands on our page, or for what belongs to it."""
        path = f"/{index}/+simple/{made.project}/"
        files = json.loads(get(self.server.port, path, JSON).body)["files"]
        (url,) = [file["url"] for file in files if file["filename"] == made.filename]
        return get(self.server.port, urljoin(path, url + suffix), FILE)

    def renew(self, *projects: str, index: str = "root/dev") -> None:
        """Wait until the upstream was asked for its pages again."""
        for project in projects:
            self.upstream.forget()
            until(lambda project=project: self.status(project, index) and self.upstream.pages(project) > 0)  # type: ignore[misc]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "the change was not seen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def lab(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Server(tmp_path_factory.mktemp("direct") / "data")
    try:
        server.start("--not-found-expiry", "1", "--request-timeout", "10")
        make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
        made = Lab(server, upstream)
        add_mirror(made, "root/slow", mirror_cache_expiry=1800)
        add_mirror(made, "root/zero", mirror_cache_expiry=0)
        yield made
    finally:
        server.end()


def add_mirror(lab: Lab, index: str, upstream: Upstream | None = None, **fields: object) -> None:
    body = {"type": "mirror", "mirror_url": (upstream or lab.upstream).simple_url, "mirror_no_project_list": True}
    status, answer = request(lab.server.port, "PUT", f"/{index}", body={**body, **fields}, headers=lab.server.auth)
    assert status == 200, answer


# Pages that stay as they are. One command installs all projects of a test.


def test_yanked_releases_without_a_reason(lab: Lab) -> None:
    """pip and uv do not agree about an attribute without a value: each must do as it does with the upstream."""
    names = []
    attributes = {"bare": "data-yanked", "empty": 'data-yanked=""', "reason": 'data-yanked="why"'}
    values = {"json-true": True, "json-text": "why", "json-nothing": "", "json-false": False, "json-null": None}
    for name in (*attributes, *values):
        project = f"yanked-{name}"
        good, yanked = lab.wheels(project, "1.0", "2.0")
        if name in attributes:
            page = html_page(row(good) + row(yanked, attributes=attributes[name]))
        else:
            files = (file_of(good, f"/files/{good.filename}"), file_of(yanked, f"/files/{yanked.filename}"))
            page = json_page(project, [files[0], {**files[1], "yanked": values[name]}])
        lab.page(project, page)
        names.append(project)
    installed = lab.compare(*names)
    assert {"yanked_empty-1.0", "yanked_reason-1.0", "yanked_json_true-1.0", "yanked_json_false-2.0"} <= installed
    assert len(lab.compare("yanked-empty==2.0", "yanked-bare==2.0", "yanked-json-true==2.0")) == 3


BACKEND = """
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "packed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as archive:
        archive.writestr("packed.py", "version = '1.0'\\n")
        archive.writestr("packed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: packed\\nVersion: 1.0\\n")
        archive.writestr("packed-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("packed-1.0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def test_files_compressed_on_their_way(lab: Lab) -> None:
    hashed, bare = make_wheel("gzip-hashed", "1.0"), make_wheel("gzip-bare", "1.0")
    for made in (hashed, bare):
        lab.put(made, compressed=True)
    lab.page(hashed.project, html_page(row(hashed)))
    lab.page(bare.project, html_page(row(bare, hashed=False)))
    assert lab.compare("gzip-hashed", "gzip-bare") == {"gzip_hashed-1.0", "gzip_bare-1.0"}


def test_sdists_that_are_only_labelled_as_compressed(lab: Lab) -> None:
    """Their bytes are right as they come. uv takes the label at its word, and fails directly."""
    files = {"pyproject.toml": PYPROJECT, "backend.py": BACKEND}
    hashed, bare = make_sdist("packed", "1.0", files=files), make_sdist("packed-bare", "1.0", files=files)
    for made in (hashed, bare):
        lab.put(made, headers={"Content-Encoding": "gzip"})
        lab.page(made.project, html_page(row(made, hashed=made is hashed)))
        assert lab.file(made) == made.content
    assert lab.compare("packed", options={"pip": ()}) == {"packed-1.0"}


def test_pages_that_are_redirected(lab: Lab) -> None:
    names = []
    for name, target, href in (
        ("index", "/simple/to-index/index.html", "../../files/{}"),
        ("query", "/simple/to-query/?list=all&page=1", ""),
        ("other", "/bucket/12345/", "files/{}"),
        ("deeper", "/simple/to-deeper/v1/", ""),
        ("sibling", "/elsewhere/to-sibling/", "../../files/{}"),
        ("file", "/pages/to-file", "files/{}"),
    ):
        project = f"to-{name}"
        made = make_wheel(project, "1.0")
        address = href.format(made.filename)
        lab.put(made, urljoin(target, address) if address else "")
        lab.upstream.answers[target] = html_page(row(made, address))
        lab.page(project, Answer(status=302, kind="", headers={"Location": target}))
        names.append(project)
    assert len(lab.compare(*names)) == len(names)


def test_addresses_of_files_as_they_are_written(lab: Lab) -> None:
    """Queries, fragments with more than a hash, ``base``, percent signs, white space, whole addresses."""
    names = ("html", "json", "page", "egg", "last", "base", "space", "local", "absolute")
    made = {name: make_wheel(f"at-{name}", "1.0+cu118" if name == "local" else "1.0") for name in names}
    path = {name: f"/files/{wheel.filename}" for name, wheel in made.items()}
    for name in ("html", "json"):
        path[name] = f"/signed/{made[name].filename}?sig=a%2Bb%2F&x=1"
    path["local"] = path["local"].replace("+", "%2B")
    for name, wheel in made.items():
        lab.put(wheel, path[name])
    digest = {name: f"sha256={wheel.sha256}" for name, wheel in made.items()}
    rows = {
        "html": row(made["html"], path["html"]),
        "egg": f'<a href="{path["egg"]}#egg=at-egg-1.0&amp;{digest["egg"]}">file</a>',
        "last": f'<a href="{path["last"]}#{digest["last"]}&amp;egg=at-last-1.0">file</a>',
        "base": f'<base href="{lab.upstream.url}/files/"></base>' + row(made["base"], made["base"].filename),
        "space": f'<a\n  href="\n{path["space"]}#{digest["space"]}"\n>\n  a file\n</a>',
        "local": row(made["local"], path["local"]),
        "absolute": row(made["absolute"], lab.upstream.url + path["absolute"]),
    }
    for name, text in rows.items():
        lab.page(f"at-{name}", html_page(text))
    lab.page("at-json", json_page("at-json", [file_of(made["json"], f"../..{path['json']}")]))
    lab.upstream.answers["/list/?all=1"] = json_page("at-page", [file_of(made["page"], path["page"])])
    lab.page("at-page", Answer(status=302, kind="", headers={"Location": "/list/?all=1"}))
    assert len(lab.compare(*(f"at-{name}" for name in names))) == len(names)
    assert lab.hashes("at-egg") == lab.hashes("at-last") == [{"sha256"}]


def test_hashes_of_every_kind(lab: Lab) -> None:
    names = []
    for kinds in (("md5",), ("sha512",), ("md5", "sha256", "sha512"), ("sha384", "unknown"), ()):
        project = "-".join(("hash", *kinds))
        (made,) = lab.wheels(project, "1.0")
        hashes = {kind: digest(kind, made) for kind in kinds}
        lab.page(project, json_page(project, [file_of(made, f"/files/{made.filename}", hashes=hashes)]))
        names.append(project)
    for kind, form in (("md5", str.lower), ("sha512", str.lower), ("sha256", str.upper)):
        (made,) = lab.wheels(f"hash-html-{kind}", "1.0")
        address = f"/files/{made.filename}#{kind}={form(digest(kind, made))}"
        lab.page(made.project, html_page(row(made, address, hashed=False)))
        names.append(made.project)
    assert len(lab.compare(*names)) == len(names)
    assert lab.hashes("hash-md5-sha256-sha512") == [{"md5", "sha256", "sha512"}]


def digest(kind: str, made: Distribution) -> str:
    if kind == "unknown":
        return "0" * 64
    return hashlib.new(kind, made.content, usedforsecurity=False).hexdigest()


def test_files_that_are_not_what_their_hash_says(lab: Lab) -> None:
    (made,) = lab.wheels("wrong", "1.0")
    lab.page("wrong", html_page(row(made, f"/files/{made.filename}#sha256={'0' * 64}", hashed=False)))
    lab.fails("wrong")


def test_a_name_that_stands_on_the_page_several_times(lab: Lab) -> None:
    """uv takes the first, pip the last: one of them succeeds with each page."""
    first, last, html = (make_wheel(project, "1.0") for project in ("again-first", "again-last", "again-html"))
    for made in (first, last):
        lab.put(made)
        right = file_of(made, f"/files/{made.filename}")
        wrong = file_of(made, f"/nowhere/{made.filename}", hashes={"sha256": "0" * 64})
        lab.page(made.project, json_page(made.project, [right, wrong] if made is first else [wrong, right]))
    lab.put(html)
    nowhere = f"/nowhere/{html.filename}#sha256={'0' * 64}"
    lab.page(html.project, html_page(row(html, nowhere, hashed=False) + row(html) + row(html, hashed=False)))
    assert lab.compare("again-first", options={"uv": ()}) == {"again_first-1.0"}
    assert lab.compare("again-last", "again-html", options={"pip": ()}) == {"again_last-1.0", "again_html-1.0"}
    assert lab.compare("again-first", options={"pip": ()}) == set()
    assert lab.compare("again-last", options={"uv": ()}) == set()


def test_pages_of_media_types_that_installers_take(lab: Lab) -> None:
    kinds = {"charset": "text/html;charset=UTF-8", "v1": HTML_V1, "parameter": f"{JSON_TYPE}; charset=utf-8"}
    for name, kind in kinds.items():
        typed(lab, f"type-{name}", kind)
    assert len(lab.compare(*(f"type-{name}" for name in kinds))) == len(kinds)
    typed(lab, "type-upper", "Text/HTML")
    assert lab.compare("type-upper", options={"pip": ()}) == {"type_upper-1.0"}


@pytest.mark.parametrize("kind", ["text_html", "", "application/json"])
def test_pages_of_media_types_that_they_refuse(lab: Lab, kind: str) -> None:
    typed(lab, f"refused-{len(kind)}", kind)
    lab.fails(f"refused-{len(kind)}")


def typed(lab: Lab, project: str, kind: str) -> None:
    """Publish a wheel on a page of this media type."""
    (made,) = lab.wheels(project, "1.0")
    as_json = "json" in kind
    page = json_page(project, [file_of(made, f"/files/{made.filename}")]) if as_json else html_page(row(made))
    lab.page(project, replace(page, kind=kind))


def test_releases_for_another_python(lab: Lab) -> None:
    names = []
    for name, attribute in (("escaped", "&gt;=4"), ("raw", ">=4"), ("both", "&gt;=3,&gt;=4")):
        project = f"python-{name}"
        good, other = lab.wheels(project, "1.0", "2.0")
        lab.page(project, html_page(row(good) + row(other, attributes=f'data-requires-python="{attribute}"')))
        names.append(project)
    assert lab.compare(*names) == {f"python_{name}-1.0" for name in ("escaped", "raw", "both")}


@pytest.mark.parametrize("index", ["root/zero", "root/pypi"])
def test_a_mirror_that_keeps_no_page(lab: Lab, index: str) -> None:
    (made,) = lab.wheels("unkept", "1.0")
    lab.page("unkept", html_page(row(made)))
    assert [lab.status("unkept", index) for _ in range(3)] == [200] * 3
    assert lab.compare("unkept", index=index) == {"unkept-1.0"}


# Pages that change


def test_a_file_with_a_new_address(lab: Lab) -> None:
    for project, hashed in (("signed", True), ("signed-bare", False)):
        (made,) = [make_wheel(project, "1.0")]
        old = lab.put(made, f"/files/{made.filename}?signature=1")
        lab.page(project, html_page(row(made, old, hashed=hashed)))
        assert lab.names(project) == [made.filename]
        del lab.upstream.answers[old]
        new = lab.put(made, f"/moved/{made.filename}?signature=2")
        lab.page(project, html_page(row(made, new, hashed=hashed)))
    lab.renew("signed", "signed-bare")
    assert lab.compare("signed", "signed-bare") == {"signed-1.0", "signed_bare-1.0"}


def test_another_upstream(lab: Lab) -> None:
    """The former one had a serial, and the same ETag."""
    with Upstream() as former:
        versions = [make_wheel("switched", version) for version in ("1.0", "2.0", "3.0")]
        files = []
        for made in versions[:2]:
            former.answers[f"/old/{made.filename}"] = Answer(body=made.content)
            files.append(file_of(made, f"/old/{made.filename}"))
        former.answers["/simple/switched/"] = json_page("switched", files, X_PyPI_Last_Serial="16906393", ETag='"same"')
        add_mirror(lab, "root/switched", former, mirror_cache_expiry=1)
        assert len(lab.names("switched", "root/switched")) == 2
        for made in versions:
            lab.put(made, f"/new/{made.filename}")
        rows = "".join(row(made, f"/new/{made.filename}") for made in versions)
        lab.page("switched", html_page(rows, ETag='"same"'))
        url = f"mirror_url={lab.upstream.simple_url}"
        assert request(lab.server.port, "PATCH", "/root/switched", body=[url], headers=lab.server.auth)[0] == 200
        former.forget()
        assert lab.names("switched", "root/switched") == [made.filename for made in versions]
        assert lab.compare("switched", index="root/switched") == {"switched-3.0"}
        assert lab.compare("switched==2.0", index="root/switched") == {"switched-2.0"}
        assert former.requests == ()


def test_a_project_that_is_deleted_and_comes_back(lab: Lab) -> None:
    """Its former ETag says nothing of the page that it has then."""
    one, two = lab.wheels("deleted", "1.0", "2.0")
    lab.page("deleted", html_page(row(one) + row(two), ETag='W/"1"'))
    assert lab.compare("deleted") == {"deleted-2.0"}
    del lab.upstream.answers["/simple/deleted/"]
    until(lambda: lab.status("deleted") == 404)
    lab.fails("deleted")
    lab.page("deleted", html_page(row(one), ETag='W/"1"'))
    until(lambda: lab.status("deleted") == 200)
    assert lab.compare("deleted") == {"deleted-1.0"}


def test_a_deleted_project_is_kept_where_that_is_asked_for(upstream: Upstream, tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    try:
        server.start("--keep-deleted", "--front", "python")
        make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
        lab = Lab(server, upstream)
        (made,) = lab.wheels("kept", "1.0")
        lab.page("kept", html_page(row(made)))
        assert lab.names("kept") == [made.filename]
        assert lab.file(made) == made.content
        del lab.upstream.answers["/simple/kept/"]
        lab.renew("kept")
        assert lab.names("kept") == [made.filename]
        assert lab.file(made) == made.content
    finally:
        server.end()


def test_a_project_that_is_published_after_somebody_asked_for_it(lab: Lab) -> None:
    """The page of a project that is there would be good for half an hour."""
    assert lab.status("late", "root/slow") == 404
    (made,) = lab.wheels("late", "1.0")
    lab.page("late", html_page(row(made)))
    until(lambda: lab.status("late", "root/slow") == 200)
    assert lab.compare("late", index="root/slow") == {"late-1.0"}


def test_a_client_that_wants_no_stored_answer(lab: Lab) -> None:
    """As `uv --refresh` asks: the page would be good for half an hour."""
    one, two = lab.wheels("hurried", "1.0", "2.0")
    lab.page("hurried", html_page(row(one)))
    assert lab.names("hurried", "root/slow") == [one.filename]
    lab.page("hurried", html_page(row(one) + row(two)))
    assert lab.names("hurried", "root/slow") == [one.filename]
    until(lambda: len(lab.names("hurried", "root/slow", Cache_Control="no-cache")) == 2)
    assert lab.compare("hurried", index="root/slow") == {"hurried-2.0"}


def test_files_that_are_replaced(lab: Lab) -> None:
    """By another of the same name: without a hash, with one, and with one that the first had not."""
    kinds = {"never": (False, False), "always": (True, True), "later": (False, True)}
    names = [f"replaced-{kind}" for kind in kinds]
    for turn in (0, 1):
        made = {}
        for kind, hashed in kinds.items():
            project = f"replaced-{kind}"
            wheel = make_wheel(project, "1.0", files={f"replaced_{kind}.py": f"turn = {turn}\n"})
            lab.put(wheel)
            lab.page(project, html_page(row(wheel, hashed=hashed[turn])))
            made[kind] = wheel
        if turn:
            lab.renew(*names)
            until(lambda wheel=made["never"]: lab.file(wheel) == wheel.content)  # type: ignore[misc]
        assert len(lab.compare(*names)) == len(names)


@pytest.mark.parametrize("fetched", [True, False])
def test_metadata_of_a_wheel_that_is_replaced(lab: Lab, fetched: bool) -> None:
    """Clients keep neither it nor its metadata without asking again."""
    project = f"metadata-{fetched}".lower()
    for requires in ([], ["bare"]):
        wheel = make_wheel(project, "1.0", requires=requires)
        lab.put(wheel)
        lab.page(project, html_page(row(wheel, hashed=False)))
        until(lambda: bool(requires) == (b"Requires-Dist: bare" in lab.got(wheel, suffix=".metadata").body))  # noqa: B023
        if fetched:
            assert [lab.got(wheel).headers["cache-control"] for _ in range(2)] == ["no-cache"] * 2
            assert lab.file(wheel) == wheel.content
        assert lab.got(wheel, suffix=".metadata").headers["cache-control"] == "no-cache"


def test_a_login_page_instead_of_a_file(lab: Lab) -> None:
    """And a compressed stream, of an upstream that is mended afterwards."""
    (made,) = lab.wheels("guarded", "1.0")
    lab.page("guarded", html_page(row(made, hashed=False)))
    lab.put(made, body=b"<html><form>log in</form></html>", kind=HTML_TYPE)
    lab.fails("guarded")
    lab.put(made)
    until(lambda: lab.file(made) == made.content)
    assert lab.compare("guarded") == {"guarded-1.0"}


def test_an_etag_that_changes_with_the_page(lab: Lab) -> None:
    one, two = lab.wheels("tagged", "1.0", "2.0")
    lab.page("tagged", html_page(row(one), ETag='"1"'))
    assert lab.names("tagged") == [one.filename]
    lab.renew("tagged")
    assert lab.names("tagged") == [one.filename]
    assert [asked.headers.get("if-none-match") for asked in lab.upstream.requests if asked.path == "/simple/tagged/"]
    lab.page("tagged", html_page(row(one) + row(two), ETag='"2"'))
    lab.renew("tagged")
    assert lab.compare("tagged") == {"tagged-2.0"}


# Times


def test_cutoffs_by_date(lab: Lab) -> None:
    times = {"1.0": LONG_AGO, "2.0": LATELY}
    dated = lab.wheels("dated", *times)
    files = [
        file_of(made, f"/files/{made.filename}", size=len(made.content), upload_time=times[made.version])
        for made in dated
    ]
    lab.page("dated", json_page("dated", files, {"versions": list(times)}))
    options = {"uv": ("--exclude-newer", "2025-01-01"), "pip": ("--uploaded-prior-to", "2025-01-01T00:00:00Z")}
    if not pip_knows("--uploaded-prior-to"):
        del options["pip"]
    assert lab.compare("dated", options=options) == {"dated-1.0"}
    assert lab.compare("dated") == {"dated-2.0"}
    wheels = lab.wheels("dated-html", *times)
    rows = (row(made, attributes=f'data-upload-time="{times[made.version]}"') for made in wheels)
    lab.page("dated-html", html_page("".join(rows)))
    assert lab.compare("dated-html", options={"uv": options["uv"]}) == {"dated_html-1.0"}


def pip_knows(option: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True, check=True
    )
    return option in done.stdout


POETRY = """
[project]
name = "consumer"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["aged"]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "tested"
url = "{}"
priority = "primary"
"""


def test_poetry_waits_until_a_release_has_its_age(lab: Lab, poetry: str, tmp_path: Path) -> None:
    old, new = lab.wheels("aged", "1.0", "2.0")
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {old.filename: LONG_AGO, new.filename: yesterday}
    files = [file_of(made, f"/files/{made.filename}", upload_time=times[made.filename]) for made in (old, new)]
    lab.page("aged", json_page("aged", files))
    with ThreadPoolExecutor() as pool:
        direct, ours = pool.map(lambda index: locked(poetry, tmp_path, index), (lab.upstream.simple_url, lab.ours()))
    assert ours == direct
    assert 'version = "1.0"' in direct


def locked(poetry: str, directory: Path, index: str) -> list[str]:
    """Versions and files in poetry's lock file."""
    project = directory / str(hash(index))
    project.mkdir()
    (project / "pyproject.toml").write_text(POETRY.format(index))
    env = {"HOME": str(project), "PATH": "/usr/bin:/bin", "POETRY_SOLVER_MIN_RELEASE_AGE": "7"}
    command = [poetry, "lock", "--no-interaction"]
    done = subprocess.run(command, env=env, cwd=project, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (line.strip() for line in (project / "poetry.lock").read_text().splitlines())
    return [line for line in lines if line.startswith(("version", "{file"))]


# What clients accept


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        (JSON_TYPE, JSON_TYPE),
        (HTML_V1, HTML_V1),
        ("text/html", "text/html"),
        (JSON_LATEST, JSON_TYPE),
        ("application/vnd.pypi.simple.latest+html", HTML_V1),
        (f"{HTML_V1}, text/html;q=0.1", HTML_V1),
        (f"text/html, {JSON_TYPE};q=0.1", "text/html"),
        (f"{JSON_LATEST}, {HTML_V1};q=0.2, text/html;q=0.01", JSON_TYPE),
        (f"text/html;q=0.01, {HTML_V1};q=0.2, {JSON_TYPE}", JSON_TYPE),
        ("*/*", "text/html"),
    ],
)
@pytest.mark.parametrize("agent", ["pip/24.0", "client/1"])
def test_each_client_gets_a_media_type_that_it_accepts(lab: Lab, accepted: str, kind: str, agent: str) -> None:
    (made,) = lab.wheels("typed", "1.0")
    lab.page("typed", html_page(row(made)))
    headers = {"Accept": accepted, "User-Agent": agent}
    for index in ("root/pypi", "root/dev"):
        for path in (f"/{index}/+simple/typed/", f"/{index}/+simple/"):
            for _ in range(2):
                got = get(lab.server.port, path, headers)
                assert (got.status, got.headers["content-type"].partition(";")[0]) == (200, kind), path
            assert ("json" in kind) == got.body.startswith(b"{")
