"""Every field of an upstream's page reaches clients, with the files that fields name: docs/reference/fields.md."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from deployer.devpi.api import DevpiApi
from deployer.devpi.converge import converge, steps
from deployer.devpi.declared import wanted
from deployer.profile.models import Index
from deployer.secrets import Secret
from tests.indexed_server import FILE, HTML, JSON, get, upload
from tests.pages import FRAGMENT, File, HtmlPage, attributes_of, either, file_of, json_page, metas_of, written
from tests.plain_devpi import PASSWORD, PlainDevpi, init
from tests.server_process import Server, auth_header, login, request
from tests.upstream import Answer, Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

DOCS = Path(__file__).parents[2] / "docs/reference/fields.md"
BLAKE = "blake2b_256"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the documentation: where the field stands in JSON (a dot leads into an object) and in HTML."""

    label: str
    top: tuple[str, ...] = ()
    file: tuple[str, ...] = ()
    metas: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


KINDS = (
    Kind(label="API version", top=("meta.api-version",), metas=("pypi:repository-version",)),
    Kind(label="versions", top=("versions",)),
    Kind(
        label="project status",
        top=("project-status",),
        metas=("pypi:project-status", "pypi:project-status-reason"),
    ),
    Kind(
        label="tracks, alternate locations",
        top=("meta.tracks", "alternate-locations"),
        metas=("pypi:tracks", "pypi:alternate-locations"),
    ),
    Kind(label="hashes", file=("hashes",), attributes=(FRAGMENT,)),
    Kind(label="required Python", file=("requires-python",), attributes=("data-requires-python",)),
    Kind(label="size", file=("size",), attributes=("data-size",)),
    Kind(label="upload time", file=("upload-time",), attributes=("data-upload-time",)),
    Kind(label="yanked", file=("yanked",), attributes=("data-yanked",)),
    Kind(
        label="metadata of a wheel",
        file=("core-metadata", "dist-info-metadata"),
        attributes=("data-core-metadata", "data-dist-info-metadata"),
    ),
    Kind(label="provenance", file=("provenance",), attributes=("data-provenance",)),
    Kind(label="signature", file=("gpg-sig",), attributes=("data-gpg-sig",)),
    Kind(label="unknown fields", top=("meta.acme-serial", "acme-note"), file=("acme-flag",)),
)
ADDRESSES = ("provenance", "data-provenance")
"""Fields that name a file of the upstream: clients get an address of ours, which another test asks."""


# The upstream


def metadata(wheel: Distribution) -> bytes:
    return f"Metadata-Version: 2.1\nName: {wheel.project}\nVersion: {wheel.version}\n".encode()


def publish(upstream: Upstream, project: str, at: str = "", versions: tuple[str, str] = ("1.0", "2.0")) -> Any:
    """A page below ``at`` with every field that a modern index gives, and all the files; the page as JSON."""
    older, newer = versions
    first, source, last = make_wheel(project, older), make_sdist(project, older), make_wheel(project, newer)
    files = []
    for made in (first, source, last):
        url = f"{upstream.url}{at}/files/{made.filename}"
        hashes = {
            "md5": hashlib.md5(made.content, usedforsecurity=False).hexdigest(),
            "sha256": made.sha256,
            BLAKE: hashlib.blake2b(made.content, digest_size=32).hexdigest(),
        }
        told = metadata(made)
        promise = {"sha256": hashlib.sha256(told).hexdigest()}
        signature, statement = f"signature of {made.filename}".encode(), json.dumps({"of": made.filename}).encode()
        upstream.answers |= {
            f"{at}/files/{made.filename}": Answer(body=made.content),
            f"{at}/files/{made.filename}.metadata": Answer(body=told),
            f"{at}/files/{made.filename}.asc": Answer(body=signature),
            f"{at}/integrity/{made.filename}/provenance": Answer(body=statement, kind="application/json"),
        }
        file = file_of(made, url, hashes=hashes, size=len(made.content), upload_time="2024-01-02T03:04:05.678901Z")
        if made is first:
            where = f"{upstream.url}{at}/integrity/{made.filename}/provenance"
            file |= {"core-metadata": promise, "dist-info-metadata": promise, "provenance": where, "gpg-sig": True}
            file |= {"requires-python": ">=3.8,<4", "yanked": False, "acme-flag": {"kept": [True, None]}}
        elif made is source:
            file |= {"provenance": None, "gpg-sig": False, "yanked": 'broken <build> & "more"'}
        else:
            file |= {"core-metadata": True, "dist-info-metadata": True, "yanked": True}
        files.append(file)
    page = {
        "meta": {"api-version": "1.4", "tracks": ["https://example.com/simple/whole/"], "acme-serial": 7},
        "name": project,
        "versions": [*versions, f"{versions[-1]}.post1"],
        "project-status": {"status": "deprecated", "reason": 'Use "other" & <soon>'},
        "alternate-locations": ["https://example.org/simple/one/", "https://example.org/simple/two/"],
        "acme-note": {"level": 3},
        "files": files,
    }
    upstream.answers[f"{at}/simple/{project}/"] = either(json_page(project, files, page), written(page))
    return page


@dataclass(frozen=True, repr=False)
class World:
    """A server with indexes of all types above two upstreams. ``pages``: what an upstream says of each project."""

    server: Server
    upstream: Upstream
    pages: Mapping[str, Any]
    began: datetime

    def __hash__(self) -> int:
        return id(self)

    @cache  # noqa: B019 - it lives as long as the tests of this module
    def body(self, index: str, project: str, *, as_json: bool) -> bytes:
        got = get(self.server.port, f"/{index}/+simple/{project}/", JSON if as_json else HTML)
        assert got.status == 200, got
        return got.body

    def json(self, index: str, project: str) -> Any:
        return json.loads(self.body(index, project, as_json=True))

    def html(self, index: str, project: str) -> HtmlPage:
        return HtmlPage.read(self.body(index, project, as_json=False))

    def download(self, index: str, project: str, address: str) -> bytes:
        """What an address on a page of ours leads to."""
        base = f"http://127.0.0.1:{self.server.port}"
        whole = urljoin(f"{base}/{index}/+simple/{project}/", address)
        assert whole.startswith(f"{base}/"), f"not an address of ours: {address}"
        got = get(self.server.port, whole.removeprefix(base), FILE)
        assert got.status == 200, (whole, got)
        return got.body


INDEXES = {
    "root/second": {"type": "mirror", "at": "/second"},
    "root/pypi": {"type": "mirror", "at": ""},
    "root/dev": {"type": "stage", "bases": ("root/pypi",), "mirror_whitelist": ("*",), "acl_upload": ("root",)},
    "root/ordered": {"type": "ordered", "bases": ("root/pypi", "root/second")},
    "root/both": {"type": "stage", "bases": ("root/pypi", "root/second")},
    "root/above": {"type": "stage", "bases": ("root/dev",), "mirror_whitelist": ("*",)},
}
VIEWS = ("root/pypi", "root/dev", "root/ordered")
EARLY = make_wheel("early", "1.0")
"""Uploaded to devpi-server before it was ours."""
OWN = (make_wheel("own", "1.0"), make_sdist("own", "1.0"), make_wheel("own", "2.0"))
ADDED = make_wheel("mixed", "9.0")


def declare(server: Server, upstream: Upstream) -> None:
    indexes = {}
    for name, told in INDEXES.items():
        fields = dict(told)
        at = fields.pop("at", None)
        more = {} if at is None else {"url": f"{upstream.url}{at}/simple/", "project_list": False}
        indexes[name] = Index(**fields, **more)
    with DevpiApi(f"http://127.0.0.1:{server.port}") as api:
        goal = wanted({}, indexes, default_mirror_url="")
        secret = Secret(PASSWORD)
        converge(api, steps(api, goal), password=lambda: secret, new_password=lambda _: secret, forget=lambda _: None)


def uploaded_before(serverdir: Path, python: str) -> None:
    """Make a server directory in which devpi-server itself took an upload."""
    init(serverdir, python=python)
    plain = PlainDevpi(serverdir, python=python)
    try:
        plain.start()
        auth = auth_header(login(plain.port, PASSWORD)[1]["result"]["password"])
        kind = "stage" if python == sys.executable else "local"  # devpi-server 7
        assert request(plain.port, "PUT", "/root/dev", body={"type": kind, "bases": []}, headers=auth)[0] == 200
        assert upload(plain, auth, "root/dev", EARLY) == 200
    finally:
        plain.stop()


@pytest.fixture(scope="module", params=["6", "7"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    python = sys.executable if request.param == "6" else request.getfixturevalue("python7")
    server = Server(tmp_path_factory.mktemp("fields") / "data", python=python)
    began = datetime.now(UTC)
    with Upstream() as upstream:
        pages = {project: publish(upstream, project) for project in ("whole", "plain", "mixed", "twice")}
        upstream.answers["/simple/plain/"] = written(pages["plain"], 'data-acme-flag="kept"')
        pages["second"] = publish(upstream, "twice", "/second", ("2.0", "3.0"))
        try:
            uploaded_before(server.serverdir, python)
            server.start()
            declare(server, upstream)
            auth = auth_header(login(server.port, PASSWORD)[1]["result"]["password"])
            for distribution in (*OWN, ADDED):
                assert upload(server, auth, "root/dev", distribution) == 200
            yield World(server, upstream, pages, began)
        finally:
            server.end()


# What is compared


def at(page: Any, path: str) -> Any:
    for key in path.split("."):
        page = page.get(key) if isinstance(page, dict) else None
    return page


def by_name(files: list[File]) -> dict[str, File]:
    names = [file["filename"] for file in files]
    assert len(names) == len(set(names))
    return {file["filename"]: file for file in files}


def lost_in_json(kind: Kind, said: Any, told: Any, *, exact: bool = True) -> dict[str, Any]:
    """Where a JSON page of ours differs from what an upstream said; ``exact``: false and absent differ, too."""
    lost = {path: at(told, path) for path in kind.top if at(told, path) != at(said, path)}
    ours = by_name(told["files"])
    for file in said["files"]:
        mine = ours.get(file["filename"], {})
        for key in kind.file:
            there, here = file.get(key), mine.get(key)
            if key in ADDRESSES:
                there, here = bool(there), bool(here)
            if not exact:
                there, here = there or None, here or None
            if here != there and not (there is None and kind.label == "metadata of a wheel"):
                lost[f"{file['filename']}: {key}"] = here
    return lost


def lost_in_html(kind: Kind, said: Any, told: HtmlPage) -> dict[str, Any]:
    metas = metas_of(said)
    lost = {name: told.metas.get(name) for name in kind.metas if told.metas.get(name) != metas.get(name)}
    for file in said["files"]:
        attributes, ours = attributes_of(file), told.attributes.get(file["filename"], {})
        for name in kind.attributes:
            there, here = attributes.get(name), ours.get(name)
            if name in ADDRESSES:
                there, here = there and "", here and ""
            if here != there:
                lost[f"{file['filename']}: {name}"] = here
    return lost


def all_lost(found: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {label: lost for label, lost in found if lost}


# The tests


@pytest.mark.parametrize("index", VIEWS)
def test_each_field_reaches_clients_of_json(world: World, index: str) -> None:
    said, told = world.pages["whole"], world.json(index, "whole")
    assert all_lost((kind.label, lost_in_json(kind, said, told)) for kind in KINDS) == {}
    assert [file["filename"] for file in told["files"]] == [file["filename"] for file in said["files"]]
    assert world.upstream.url.encode() not in world.body(index, "whole", as_json=True)


@pytest.mark.parametrize("index", VIEWS)
def test_each_field_reaches_clients_of_html(world: World, index: str) -> None:
    said, told = world.pages["whole"], world.html(index, "whole")
    assert all_lost((kind.label, lost_in_html(kind, said, told)) for kind in KINDS) == {}
    assert list(told.hrefs) == [file["filename"] for file in said["files"]]
    assert world.upstream.url.encode() not in world.body(index, "whole", as_json=False)


@pytest.mark.parametrize("index", VIEWS)
def test_an_upstream_of_html_reaches_clients_of_both(world: World, index: str) -> None:
    page = world.pages["plain"]
    files = [{**file, "hashes": {"sha256": file["hashes"]["sha256"]}} for file in page["files"]]
    said = {**page, "files": files}
    html, told = world.html(index, "plain"), world.json(index, "plain")
    assert all_lost((kind.label, lost_in_html(kind, said, html)) for kind in KINDS) == {}
    assert {attributes.get("data-acme-flag") for attributes in html.attributes.values()} == {"kept"}
    in_html = [kind for kind in KINDS if kind.metas or kind.attributes]
    # The older name of the metadata's key is not for JSON (PEP 714).
    newer = [{key: value for key, value in file.items() if key != "dist-info-metadata"} for file in files]
    lost = ((kind.label, lost_in_json(kind, {**page, "files": newer}, told, exact=False)) for kind in in_html)
    assert all_lost(lost) == {}
    files_of_ours = by_name(told["files"])
    assert all("html" not in key for file in files_of_ours.values() for key in file)


@pytest.mark.parametrize("project", ["whole", "plain"])
@pytest.mark.parametrize("index", VIEWS)
def test_what_fields_name_is_downloaded_through_us(world: World, index: str, project: str) -> None:
    def said_by_upstream(address: str) -> bytes:
        answer = world.upstream.answers[address.removeprefix(world.upstream.url)]
        assert isinstance(answer, Answer)
        return answer.body

    ours, html = by_name(world.json(index, project)["files"]), world.html(index, project)
    for file in world.pages[project]["files"]:
        name, url = file["filename"], file["url"]
        for address in (ours[name]["url"], html.hrefs[name]):
            assert world.download(index, project, address) == said_by_upstream(url)
            if file.get("core-metadata"):
                assert world.download(index, project, f"{address}.metadata") == said_by_upstream(f"{url}.metadata")
            if file.get("gpg-sig"):
                assert world.download(index, project, f"{address}.asc") == said_by_upstream(f"{url}.asc")
        if file.get("provenance"):
            for address in (ours[name]["provenance"], html.attributes[name]["data-provenance"]):
                assert world.download(index, project, address) == said_by_upstream(file["provenance"])


# Merged pages

OF_FILES = [kind for kind in KINDS if kind.file and kind.label != "unknown fields"]


@pytest.mark.parametrize("index", ["root/dev", "root/above"])
def test_an_upload_beside_a_mirror_keeps_the_fields_of_both(world: World, index: str) -> None:
    said, told, html = world.pages["mixed"], world.json(index, "mixed"), world.html(index, "mixed")
    assert all_lost((kind.label, lost_in_json(kind, said, told)) for kind in OF_FILES) == {}
    assert (
        all_lost((kind.label, lost_in_html(kind, {**said, "meta": {"api-version": "1.0"}}, html)) for kind in OF_FILES)
        == {}
    )
    assert sorted(told["versions"]) == sorted([*said["versions"], ADDED.version])
    is_as_uploaded(world, index, "mixed", ADDED)


@pytest.mark.parametrize("index", ["root/both", "root/ordered"])
def test_two_mirrors_are_merged_and_each_file_keeps_the_fields_of_its_own(world: World, index: str) -> None:
    """Whose file it is of two with the same name is devpi's choice, and the address tells it."""
    told, html = world.json(index, "twice"), world.html(index, "twice")
    mirrors = {"root/pypi": world.pages["twice"], "root/second": world.pages["second"]}
    if index == "root/ordered":
        del mirrors["root/second"]
    found = by_name(told["files"])
    files = []
    for name, file in found.items():
        (mirror,) = [mirror for mirror in mirrors if f"{mirror}/+f/" in file["url"] and mirror in html.hrefs[name]]
        files.append(by_name(mirrors[mirror]["files"])[name])
    assert set(found) == set(html.hrefs) == {file["filename"] for page in mirrors.values() for file in page["files"]}
    said = {**world.pages["twice"], "files": files}
    assert all_lost((kind.label, lost_in_json(kind, said, told)) for kind in OF_FILES) == {}
    assert all_lost((kind.label, lost_in_html(kind, said, html)) for kind in OF_FILES) == {}
    assert set(told["versions"]) == {version for page in mirrors.values() for version in page["versions"]}
    assert len(told["versions"]) == len(set(told["versions"]))


# Uploads of our own


def is_as_uploaded(world: World, index: str, project: str, made: Distribution) -> None:
    """The fields that PEP 700 and PEP 714 ask for, in JSON and HTML."""
    file, html = by_name(world.json(index, project)["files"])[made.filename], world.html(index, project)
    attributes = html.attributes[made.filename]
    assert file["hashes"]["sha256"] == made.sha256
    assert attributes[FRAGMENT] == f"sha256={made.sha256}"
    assert (file["size"], attributes["data-size"]) == (len(made.content), str(len(made.content)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", file["upload-time"])
    when = datetime.fromisoformat(file["upload-time"])
    assert world.began - timedelta(seconds=1) <= when <= datetime.now(UTC)  # devpi keeps whole seconds
    assert attributes["data-upload-time"] == file["upload-time"]
    assert world.download(index, project, file["url"]) == made.content
    if not made.filename.endswith(".whl"):
        assert "core-metadata" not in file
        return
    digest = hashlib.sha256(metadata(made)).hexdigest()
    assert file["core-metadata"] in (True, {"sha256": digest})
    assert "dist-info-metadata" not in file  # pip 22.3 to 23.1 would fail
    assert attributes["data-core-metadata"] in ("true", f"sha256={digest}")
    assert attributes["data-dist-info-metadata"] == attributes["data-core-metadata"]
    assert world.download(index, project, f"{file['url']}.metadata") == metadata(made)


@pytest.mark.parametrize("index", ["root/dev", "root/above"])
def test_uploads_have_fields_of_their_own(world: World, index: str) -> None:
    for made in OWN:
        is_as_uploaded(world, index, "own", made)
    told = world.json(index, "own")
    assert sorted(told["versions"]) == ["1.0", "2.0"]
    assert told["meta"]["api-version"] >= "1.1"


@pytest.mark.parametrize("index", ["root/dev", "root/above"])
def test_uploads_from_before_have_them_too(world: World, index: str) -> None:
    is_as_uploaded(world, index, "early", EARLY)
    assert world.json(index, "early")["versions"] == ["1.0"]


# The documentation


def test_the_documentation_has_a_row_for_each_field() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| field |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    names = [(row[0], *(tuple(re.findall(r"`([^`]+)`", cell)) for cell in row[1:3])) for row in rows]
    named = [kind for kind in KINDS if kind.label != "unknown fields"]
    of_json = {kind.label: (*kind.top, *kind.file) for kind in named} | {"unknown fields": ()}
    of_html = {kind.label: (*kind.metas, *kind.attributes) for kind in named} | {"unknown fields": ("data-",)}
    of_html["hashes"] = ("#sha256=",)
    assert len(names) == len(KINDS) == 13
    assert {label: json_names for label, json_names, _ in names} == of_json
    assert {label: html_names for label, _, html_names in names} == of_html
