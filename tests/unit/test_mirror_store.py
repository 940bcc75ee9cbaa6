"""Pages of upstreams on the disk: found again by name, and none at all where a file is damaged."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from deployer.server.devpi.links import place
from deployer.server.mirrors.page import Page
from deployer.server.mirrors.store import Head, Kept, UpstreamPages
from tests.unit.test_mirror_page import file

URL = "https://index.example.com/simple/"
FILES = [
    file(),
    file(filename="demo-1.0.zip", hashes={}, url="https://files.example.com/a%2Fb/demo-1.0.zip?x=1"),
    file(filename="demo-1.0.zip", hashes={}, url="https://files.example.com/other/demo-1.0.zip"),
    file(filename="démo-\U0001f40d \"'.zip", hashes={"md5": "c" * 32}),
]
LINES = Page.of({}, FILES).lines


def head(**changes: Any) -> Head:
    given: dict[str, Any] = {
        "mirror": URL,
        "url": f"{URL}demo/",
        "etag": '"1"',
        "modified": "Sat, 28 Nov 2026 12:00:00 GMT",
        "serial": "7",
        "files": len(FILES),
        "fields": {"meta": {"api-version": "1.4"}, "name": "demo", "unknown": ["a\nb", "\u2028"]},
    }
    return Head(**given | changes)


@pytest.fixture
def pages(tmp_path: Path) -> UpstreamPages:
    return UpstreamPages(tmp_path / "upstream")


def kept(pages: UpstreamPages, project: str = "demo", mirror: str = "root/pypi", **changes: Any) -> Kept:
    written = pages.write(mirror, project, head(**changes), LINES, at=1000.0)
    assert written is not None
    return written


def stored(pages: UpstreamPages) -> Path:
    path = pages.path("root/pypi", "demo")
    assert path is not None
    return path


# One page


def test_a_page_is_read_as_it_was_written(pages: UpstreamPages) -> None:
    written = kept(pages, gone=True, lacking=["+f/abc/x.whl"])
    found = pages.read("root/pypi", "demo", url=URL)
    assert found == written
    assert found is not None
    assert (found.head, found.at, found.page().files) == (head(gone=True, lacking=["+f/abc/x.whl"]), 1000.0, FILES)
    assert found.page().fields == head().fields


def test_a_page_without_files(pages: UpstreamPages) -> None:
    pages.write("root/pypi", "demo", head(files=0), b"", at=1.0)
    found = pages.read("root/pypi", "demo", url=URL)
    assert found is not None
    assert found.page().files == []


def test_it_is_private(pages: UpstreamPages) -> None:
    kept(pages)
    assert stat.S_IMODE(stored(pages).stat().st_mode) == 0o600
    assert stat.S_IMODE(stored(pages).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("one", FILES, ids=lambda one: one["filename"])
def test_a_file_is_found_by_its_place(pages: UpstreamPages, one: dict[str, Any]) -> None:
    assert kept(pages).find(place(one)) == one


@pytest.mark.parametrize(
    "path", ["", "+f/aaa/aaaaaaaaaaaaa/demo-2.0.zip", "+f/bbb/bbbbbbbbbbbbb/demo-1.0-py3-none-any.whl"]
)
def test_another_place_is_not_found(pages: UpstreamPages, path: str) -> None:
    assert kept(pages).find(path) is None


def test_the_name_of_a_file_inside_of_another_field_is_not_that_of_a_file(pages: UpstreamPages) -> None:
    one = file(unknown={"filename": "inner.zip"}, yanked='"filename": "text.zip"')
    written = pages.write("root/pypi", "demo", head(files=1), Page.of({}, [one]).lines, at=1.0)
    assert written is not None
    assert [list(written.named(name)) for name in ("inner.zip", "text.zip")] == [[], []]
    assert list(written.named(one["filename"])) == [one]


def test_another_upstream_has_other_pages(pages: UpstreamPages) -> None:
    kept(pages)
    assert pages.read("root/pypi", "demo", url="https://other.example.com/simple/") is None


def test_when_a_page_was_confirmed(pages: UpstreamPages) -> None:
    written = kept(pages)
    pages.confirm("root/pypi", "demo", at=2000.0)
    found = pages.read("root/pypi", "demo", url=URL)
    assert found is not None
    assert (found.at, found.head) == (2000.0, written.head)
    pages.confirm("root/pypi", "unknown", at=1.0)  # deleted meanwhile
    pages.confirm("root/..", "demo", at=1.0)


def test_fields_of_the_head_are_replaced(pages: UpstreamPages) -> None:
    written = kept(pages)
    assert not pages.is_gone("root/pypi", "demo")
    marked = pages.mark("root/pypi", "demo", written, gone=True, at=5.0)
    assert marked == pages.read("root/pypi", "demo", url=URL)
    assert (marked.head.gone, marked.at, marked.lines) == (True, 5.0, written.lines)
    assert pages.is_gone("root/pypi", "demo")
    assert not pages.is_gone("root/pypi", "unknown")


# Damage


def test_a_file_that_is_cut_short_anywhere_is_none(pages: UpstreamPages) -> None:
    kept(pages)
    content = stored(pages).read_bytes()
    for length in range(0, len(content), 13):
        stored(pages).write_bytes(content[:length])
        assert pages.read("root/pypi", "demo", url=URL) is None
    stored(pages).write_bytes(content)
    assert pages.read("root/pypi", "demo", url=URL) is not None


def test_a_file_with_another_byte_anywhere_is_none(pages: UpstreamPages) -> None:
    kept(pages)
    content = stored(pages).read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1
        stored(pages).write_bytes(damaged)
        assert pages.read("root/pypi", "demo", url=URL) is None
        pages.is_gone("root/pypi", "demo")  # raises nothing


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b"null\n", b"\x00" * 500, b"[" * 100_000, b"00000000 \n", b"\xff"]
)
def test_a_file_of_anything_is_none(pages: UpstreamPages, content: bytes) -> None:
    kept(pages)
    stored(pages).write_bytes(content)
    assert pages.read("root/pypi", "demo", url=URL) is None
    assert not pages.is_gone("root/pypi", "demo")


def test_a_page_of_another_version_of_deployer_is_none(pages: UpstreamPages, monkeypatch: pytest.MonkeyPatch) -> None:
    written = kept(pages)
    monkeypatch.setattr("deployer.server.mirrors.store.vars", lambda one: {**one.__dict__, "later": 1}, raising=False)
    pages.mark("root/pypi", "demo", written, at=1.0)
    assert pages.read("root/pypi", "demo", url=URL) is None


def test_a_directory_in_its_place_is_none(pages: UpstreamPages) -> None:
    stored(pages).mkdir(parents=True)
    assert pages.read("root/pypi", "demo", url=URL) is None
    with pytest.raises(OSError):
        kept(pages)


# Names


@pytest.mark.parametrize(
    ("mirror", "project"),
    [
        ("root/pypi", ".url"),
        ("root/pypi", ".."),
        ("root/pypi", "../other/demo"),
        ("root/pypi", ""),
        ("root/pypi", "a" * 201),
        ("root/pypi", "a b"),
        ("root/pypi", "a\x00b"),
        ("root/pypi", "é"),
        ("root", "demo"),
        ("root/pypi/x", "demo"),
        ("root/..", "demo"),
        ("../root", "demo"),
        ("./pypi", "demo"),
        ("/pypi", "demo"),
        ("root/\x00", "demo"),
        ("root/\ud800", "demo"),
        ("", "demo"),
    ],
)
def test_names_that_lead_elsewhere_have_no_page(
    pages: UpstreamPages, mirror: str, project: str, tmp_path: Path
) -> None:
    assert pages.path(mirror, project) is None
    assert pages.write(mirror, project, head(), LINES, at=1.0) is None
    assert pages.read(mirror, project, url=URL) is None
    assert not pages.is_gone(mirror, project)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mirror", ["root/_mirror", "a@b/.x", "-/-", "é/ü", "root/.url"])
def test_any_name_that_devpi_takes_has_pages(pages: UpstreamPages, mirror: str) -> None:
    kept(pages, mirror=mirror)
    pages.begin(mirror, URL, replaced=False)
    assert pages.former(mirror) == URL
    kept(pages, mirror=mirror)
    assert pages.projects(mirror) == ["demo"]
    assert (pages.keep_only([mirror]), pages.keep_only([]), pages.former(mirror)) == ([], [mirror], None)


# Indexes


def test_projects_are_those_with_a_page(pages: UpstreamPages) -> None:
    assert (pages.projects("root/pypi"), pages.keep_only([])) == ([], [])
    pages.begin("root/pypi", URL, replaced=False)
    for project in ("beta", "alpha"):
        kept(pages, project)
    kept(pages, "gamma", mirror="root/other")
    (stored(pages).parent / ".half-written").touch()
    assert (pages.projects("root/pypi"), pages.projects("root/other")) == (["alpha", "beta"], ["gamma"])
    assert pages.projects("root/..") == []


def test_another_upstream_begins_without_pages(pages: UpstreamPages) -> None:
    assert (pages.former("root/pypi"), pages.replaced("root/pypi")) == (None, False)
    pages.begin("root/pypi", URL, replaced=False)
    kept(pages)
    assert (pages.former("root/pypi"), pages.replaced("root/pypi")) == (URL, False)
    pages.begin("root/pypi", "https://other.example.com/", replaced=True)
    assert (pages.former("root/pypi"), pages.replaced("root/pypi")) == ("https://other.example.com/", True)
    assert (pages.projects("root/pypi"), pages.read("root/pypi", "demo", url=URL)) == ([], None)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\x00"])
def test_a_damaged_address_is_another_one(pages: UpstreamPages, content: bytes) -> None:
    pages.begin("root/pypi", URL, replaced=True)
    (stored(pages).parent / ".url").write_bytes(content)
    assert pages.former("root/pypi") != URL


def test_pages_of_indexes_that_are_no_more_are_forgotten(pages: UpstreamPages) -> None:
    for mirror in ("root/pypi", "root/other", "user/dev"):
        kept(pages, mirror=mirror)
    assert pages.keep_only(["root/other", "root/new"]) == ["root/pypi", "user/dev"]
    assert pages.keep_only(["root/other", "root/new"]) == []
    assert (pages.projects("root/other"), pages.projects("root/pypi")) == (["demo"], [])


def test_on_a_disk_that_is_nearly_full_nothing_is_written(
    pages: UpstreamPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = kept(pages)
    monkeypatch.setattr("deployer.server.secret_files.has_room", lambda directory, reserve: False)
    with pytest.raises(OSError, match="No space left"):
        kept(pages, "other")
    with pytest.raises(OSError, match="No space left"):
        pages.mark("root/pypi", "demo", written, gone=True, at=1.0)
    assert pages.read("root/pypi", "demo", url=URL) == written
    assert pages.projects("root/pypi") == ["demo"]


def test_a_line_is_one_file_object(pages: UpstreamPages) -> None:
    """So that a file is found without reading the others."""
    first, *lines = kept(pages) and stored(pages).read_bytes().splitlines()
    assert json.loads(first[9:])["files"] == len(lines) == len(FILES)
