"""Pages of upstreams as data: every field of JSON and HTML, and values that no standard allows."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.devpi.links import place
from deployer.server.mirrors.page import (
    ATTRIBUTES,
    JSON_TYPE,
    InvalidPage,
    Page,
    is_filename,
    project_candidates,
    read,
    size_of,
    storable,
)

URL = "https://index.example.com/simple/demo/"
WHEEL = "demo-1.0-py3-none-any.whl"
SHA256, SHA512 = "a" * 64, "b" * 128


def of_json(data: Any, content_type: str = JSON_TYPE) -> Page:
    return read(json.dumps(data).encode(), content_type, url=URL, project="demo")


def of_html(text: str, content_type: str = "text/html", *, url: str = URL) -> Page:
    return read(text.encode(), content_type, url=url, project="demo")


def file(**fields: Any) -> dict[str, Any]:
    found = {"filename": WHEEL, "url": f"https://files.example.com/{WHEEL}", "hashes": {"sha256": SHA256}, **fields}
    return {name.replace("_", "-"): value for name, value in found.items()}


def page(*files: Any, **fields: Any) -> dict[str, Any]:
    top = {"meta": {"api-version": "1.4"}, "name": "demo", **fields}
    return {name.replace("_", "-"): value for name, value in top.items()} | {"files": list(files)}


# JSON


def test_every_field_of_a_json_page_is_kept() -> None:
    fields = {
        "meta": {"api-version": "1.4", "_last-serial": 7, "tracks": ["https://example.com/demo/"]},
        "name": "demo",
        "versions": ["1.0"],
        "alternate-locations": ["https://example.org/demo/"],
        "project-status": {"status": "archived", "reason": "no longer needed"},
        "of-the-future": {"nested": [1, 2.5, None]},
    }
    one = file(
        hashes={"sha256": SHA256, "sha512": SHA512, "of-the-future": "x"},
        requires_python=">=3.9",
        core_metadata={"sha256": SHA512},
        dist_info_metadata={"sha256": SHA512},
        yanked="broken",
        size=12,
        upload_time="2026-01-02T03:04:05.678901Z",
        provenance="https://files.example.com/demo.provenance",
        gpg_sig=True,
        of_the_future=[{"a": 1}],
    )
    found = of_json({**fields, "files": [one]})
    assert (found.fields, found.files) == (fields, [one])


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("https://files.example.com/a/demo-1.0.zip", "https://files.example.com/a/demo-1.0.zip"),
        ("../../a/demo-1.0.zip", "https://index.example.com/a/demo-1.0.zip"),
        ("/a/demo-1.0.zip", "https://index.example.com/a/demo-1.0.zip"),
        ("//files.example.com/demo-1.0.zip", "https://files.example.com/demo-1.0.zip"),
        ("HTTP://files.example.com/demo-1.0.zip", "http://files.example.com/demo-1.0.zip"),
        ("demo-1.0.zip?sign=a%2Fb&x=1#sha256=abc", "https://index.example.com/simple/demo/demo-1.0.zip?sign=a%2Fb&x=1"),
        ("demo-1.0.zip\n?a=\tb", "https://index.example.com/simple/demo/demo-1.0.zip?a=b"),
        ("demo 1.0.zip", "https://index.example.com/simple/demo/demo 1.0.zip"),
    ],
)
def test_addresses_are_absolute_with_their_query_and_without_a_fragment(given: str, absolute: str) -> None:
    assert [one["url"] for one in of_json(page(file(url=given))).files] == [absolute]


SEGMENTS = st.sampled_from(["..", ".", "", "a", "b.zip", ".c", "d%2Fe", "~", "f..", "g:h", "i?x=/", "é", "j;k"])


@given(
    st.lists(SEGMENTS, min_size=1, max_size=6), st.sampled_from([URL, "https://index.example.com/x?y=/z/", "http://h"])
)
def test_a_relative_address_is_resolved_as_clients_resolve_it(segments: list[str], base: str) -> None:
    address = "/".join(segments)
    found = read(json.dumps(page(file(url=address), file())).encode(), JSON_TYPE, url=base, project="demo").files
    resolved = urljoin(base, address)
    assert [one["url"] for one in found[:-1]] == ([resolved] if resolved.startswith("http") else [])


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a.zip", "file:///etc/passwd", "javascript:alert(1)", "https://[", "//[::1/a.zip", 5, None),
        *("\ud800", "https://example.com/a\x00.zip", "https://example.com/\ud800.zip", "https://exam\u2100ple.com/a"),
    ],
)
def test_a_file_that_no_client_can_get_is_left_out(url: Any) -> None:
    assert of_json(page(file(url=url), file(filename="demo-2.zip"))).files == [file(filename="demo-2.zip")]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden.zip",
        "a/b.zip",
        "a\\b.zip",
        "a\x00b.zip",
        "a\nb.zip",
        "a\u202eb.zip",
        "\ud800.zip",
        7,
        None,
        [],
    ],
)
def test_a_name_that_is_no_plain_name_of_a_file_is_left_out(name: Any) -> None:
    assert of_json(page(file(filename=name), file())).files == [file()]


def test_a_page_without_any_valid_file_is_no_page() -> None:
    assert of_json(page()).files == []
    with pytest.raises(InvalidPage, match="none of its files is valid"):
        of_json(page(file(url="http://[::1/x"), file(filename="..")))


@pytest.mark.parametrize("found", [None, 1, "demo-1.0.zip", [], [file()], {}, {"filename": "demo-1.0.zip"}])
def test_what_is_no_file_object_is_left_out(found: Any) -> None:
    assert of_json(page(found, file())).files == [file()]


@pytest.mark.parametrize(
    ("hashes", "kept"),
    [
        (None, {}),
        ([], {}),
        ("sha256=1", {}),
        ({"sha256": 1, "md5": None}, {}),
        ({"sha256": ["x"], "md5": "c"}, {"md5": "c"}),
    ],
)
def test_hashes_are_strings(hashes: Any, kept: dict[str, str]) -> None:
    assert of_json(page(file(hashes=hashes))).files == [file(hashes=kept)]


def test_our_own_field_is_not_taken_from_an_upstream() -> None:
    assert ATTRIBUTES not in of_json(page(file() | {ATTRIBUTES: {'x"><script>': "1"}})).files[0]


@pytest.mark.parametrize(
    ("meta", "version"),
    [
        ({"api-version": "1.0"}, "1.0"),
        ({"api-version": "1.99"}, "1.99"),
        ({"api-version": 1.1}, "1.1"),
        ({"api-version": None}, "1.0"),
        ({"api-version": ""}, "1.0"),
        ({}, "1.0"),
        (None, "1.0"),
        ([1], "1.0"),
        ("1.0", "1.0"),
    ],
)
def test_the_version_of_the_api_is_a_string(meta: Any, version: str) -> None:
    found = of_json(page(file(), meta=meta))
    assert (found.fields["meta"]["api-version"], len(found.files)) == (version, 1)


@pytest.mark.parametrize("version", ["2.0", "2", "10.0", "0.9", "x", [1], {"1": 1}, True])
def test_another_version_of_the_api_is_refused(version: Any) -> None:
    with pytest.raises(InvalidPage, match="API version"):
        of_json(page(meta={"api-version": version}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"files"',
        b"{}",
        b'{"files": {}}',
        b'{"files": null}',
        b'{"files": "demo-1.0.zip"}',
        b"<html></html>",
        b"\xff\xfe\xff",
        b'{"files": [], "size": NaN}',
        b'{"files": [], "size": -Infinity}',
        b'{"files": [], "size": 1e999}',
        b'{"files": [], "size": ' + b"9" * 5000 + b"}",
        b'{"files": [], "x": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"files": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"files": ' + b'{"files": ' * 100_000,
    ],
    ids=lambda content: content[:30].decode(errors="replace"),
)
def test_what_is_no_json_page_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidPage):
        read(content, JSON_TYPE, url=URL, project="demo")


def test_a_file_object_that_is_nested_deeply_is_left_out() -> None:
    nested: Any = "x"
    for _ in range(60):
        nested = {"a": [nested]}
    assert of_json(page(file(deep=nested), file())).files == [file()]


@pytest.mark.parametrize("value", ["12", -1, 1.5, True, None, [], {}, 1 << 63])
def test_a_size_of_another_type_is_passed_on_and_not_used(value: Any) -> None:
    (found,) = of_json(page(file(size=value))).files
    assert found["size"] == value
    assert size_of(found) is None


def test_devpi_stores_fields_of_the_right_types_and_one_hash() -> None:
    hashes = {"md5": "c" * 32, "sha256": SHA256}
    right = {"requires-python": ">=3", "upload-time": "2026-01-02T03:04:05Z", "yanked": True, "size": 1}
    (found,) = of_json(page(file(hashes=hashes) | right)).files
    assert storable(found) == file() | right
    wrong = {"requires-python": [], "upload-time": 5, "yanked": {"a": 1}, "size": -1, "of-the-future": 1}
    (found,) = of_json(page(file(hashes={"x": "y"}) | wrong)).files
    assert storable(found) == file(hashes={})
    (found,) = of_json(page(file() | {"yanked": "", "requires-python": ""})).files
    assert storable(found) == file()


# HTML


def anchor(href: str, **attributes: str | None) -> str:
    texts = {name.replace("_", "-"): value for name, value in attributes.items()}
    more = "".join(f" {name}" if value is None else f' {name}="{escape(value)}"' for name, value in texts.items())
    return f'<!DOCTYPE html><html><body><a href="{escape(href)}"{more}>x</a></body></html>'


def test_every_field_of_an_html_page_is_kept() -> None:
    text = (
        '<html><head><meta name="pypi:repository-version" content="1.4">'
        '<meta name="pypi:tracks" content="https://a.example.com/demo/">'
        '<meta name="pypi:tracks" content="https://b.example.com/demo/">'
        '<meta name="pypi:alternate-locations" content="https://c.example.com/demo/">'
        '<meta name="pypi:project-status" content="quarantined">'
        '<meta name="pypi:project-status-reason" content="malware &amp; worse">'
        '<meta name="viewport" content="x"><meta name="pypi:empty" content=""></head>'
    ) + anchor(
        f"/files/{WHEEL}#sha256={SHA256}",
        data_requires_python=">=3.9,<4",
        data_core_metadata=f"sha256={SHA512}",
        data_dist_info_metadata="true",
        data_yanked="broken & old",
        data_size="12",
        data_upload_time="2026-01-02T03:04:05.678901Z",
        data_gpg_sig="true",
        data_provenance="/files/demo.provenance",
        data_of_the_future="x",
        class_="none",
    )
    found = of_html(text)
    assert (found.fields, found.files) == (
        {
            "meta": {"api-version": "1.4", "tracks": ["https://a.example.com/demo/", "https://b.example.com/demo/"]},
            "name": "demo",
            "alternate-locations": ["https://c.example.com/demo/"],
            "project-status": {"status": "quarantined", "reason": "malware & worse"},
        },
        [
            {
                "filename": WHEEL,
                "url": f"https://index.example.com/files/{WHEEL}",
                "hashes": {"sha256": SHA256},
                "requires-python": ">=3.9,<4",
                "core-metadata": {"sha256": SHA512},
                "yanked": "broken & old",
                "size": 12,
                "upload-time": "2026-01-02T03:04:05.678901Z",
                "gpg-sig": True,
                "provenance": "https://index.example.com/files/demo.provenance",
                ATTRIBUTES: {"data-of-the-future": "x"},
            }
        ],
    )


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        ("", {}),
        (f"#sha256={SHA256}", {"sha256": SHA256}),
        (f"#egg=demo&sha256={SHA256}", {"sha256": SHA256}),
        (f"#md5={'c' * 32}&sha256={SHA256}&subdirectory=x", {"md5": "c" * 32, "sha256": SHA256}),
        ("#sha256=", {}),
        ("#sha256", {}),
        ("#egg=demo", {}),
        ("##sha256=abc", {}),
    ],
)
def test_all_hashes_of_a_fragment_count(fragment: str, hashes: dict[str, str]) -> None:
    (found,) = of_html(anchor(f"demo-1.0.zip{fragment}")).files
    assert (found["hashes"], found["url"]) == (hashes, f"{URL}demo-1.0.zip")


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"data_yanked": None}, {"yanked": ""}),
        ({"data_yanked": ""}, {"yanked": True}),
        ({"data_yanked": "why"}, {"yanked": "why"}),
        ({"data_gpg_sig": "false"}, {"gpg-sig": False}),
        ({"data_core_metadata": None}, {"core-metadata": True}),
        ({"data_core_metadata": ""}, {"core-metadata": True}),
        ({"data_core_metadata": "false"}, {"core-metadata": False}),
        ({"data_core_metadata": "sha256=x"}, {"core-metadata": {"sha256": "x"}}),
        ({"data_requires_python": ""}, {}),
        ({"data_requires_python": None}, {}),
        ({"data_size": "-1"}, {}),
        ({"data_size": "1.5"}, {}),
        ({"data_size": "٣"}, {}),
        ({"data_size": "9" * 5000}, {}),
        ({"data_upload_time": "yesterday"}, {}),
        ({"data_upload_time": "2026-01-02"}, {}),
        ({"data_provenance": "http://["}, {}),
        ({"data_provenance": "ftp://example.com/x"}, {}),
    ],
)
def test_attributes_without_a_value_or_with_a_wrong_one(
    attributes: dict[str, str | None], field: dict[str, Any]
) -> None:
    (found,) = of_html(anchor("demo-1.0.zip", **attributes)).files
    assert found == {"filename": "demo-1.0.zip", "url": f"{URL}demo-1.0.zip", "hashes": {}} | field


def test_the_first_base_counts_from_where_it_stands() -> None:
    text = '<base href=" ../files/ "><base href="https://other.example.com/">' + anchor("demo-1.0.zip")
    assert of_html(text).files[0]["url"] == "https://index.example.com/simple/files/demo-1.0.zip"
    assert of_html("<base><base href=''>" + anchor("demo-1.0.zip")).files[0]["url"] == f"{URL}demo-1.0.zip"
    with pytest.raises(InvalidPage):
        of_html('<base href="//[">' + anchor("demo-1.0.zip"))


@pytest.mark.parametrize(
    "href",
    [
        *("", "../", "#top", "?list=1", "https://example.com/", "mailto:a@example.com", "demo-1.0.txt"),
        *("a%2Fdemo-1.0.zip", "a%00demo-1.0.zip", ".zip", "%2e%2e.zip", "javascript:alert(1).zip", "//[/demo-1.0.zip"),
    ],
)
def test_links_that_are_no_files_are_left_out(href: str) -> None:
    assert of_html(anchor(href) + anchor("demo-1.0.zip")).files[0]["filename"] == "demo-1.0.zip"


def test_a_name_is_decoded_and_its_address_is_not() -> None:
    (found,) = of_html(anchor("demo-1.0%2Blocal.zip?a=%2B")).files
    assert (found["filename"], found["url"]) == ("demo-1.0+local.zip", f"{URL}demo-1.0%2Blocal.zip?a=%2B")


def test_the_version_of_an_html_page() -> None:
    with pytest.raises(InvalidPage, match=re.escape("API version '2.0'")):
        of_html('<meta name="pypi:repository-version" content="2.0">')
    assert of_html("").fields == {"meta": {"api-version": "1.0"}, "name": "demo"}


# Media types


@pytest.mark.parametrize(
    "content_type",
    [JSON_TYPE, f"{JSON_TYPE}; charset=utf-8", f"{JSON_TYPE.upper()} ;charset=UTF-8"],
)
def test_media_types_of_json(content_type: str) -> None:
    assert of_json(page(file()), content_type).files == [file()]


@pytest.mark.parametrize(
    "content_type", ["text/html", "Text/HTML; charset=utf-8", "application/vnd.pypi.simple.v1+html;x"]
)
def test_media_types_of_html(content_type: str) -> None:
    assert len(of_html(anchor("demo-1.0.zip"), content_type).files) == 1


def test_the_charset_of_html() -> None:
    text = anchor("demo-1.0.zip", data_yanked="für").encode("latin-1")
    (found,) = read(text, "text/html; charset=latin-1", url=URL, project="demo").files
    assert found["yanked"] == "für"
    (found,) = read(text, "text/html", url=URL, project="demo").files
    assert found["yanked"] == "f\ufffdr"


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "text_html", "application/json", "application/vnd.pypi.simple.v2+json", "x" * 5000),
        *("text/html; charset=no-such", "text/html; charset=undefined"),
    ],
)
def test_other_media_types_are_refused_by_name(content_type: str) -> None:
    with pytest.raises(InvalidPage) as caught:
        read(b"x", content_type, url=URL, project="demo")
    assert len(str(caught.value)) < 300


# Anything


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1.0", URL, WHEEL, "a/b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = ["filename", "url", "hashes", "yanked", "size", "upload-time", "core-metadata", "requires-python", "provenance"]
FILES = st.dictionaries(st.sampled_from(NAMES), ANYTHING) | ANYTHING
LIKELY = st.fixed_dictionaries(
    {"filename": st.text() | st.just(WHEEL), "url": st.text() | st.just(URL), "hashes": ANYTHING},
    optional={"size": ANYTHING},
)
PAGES = st.fixed_dictionaries(
    {"files": st.lists(FILES | LIKELY, max_size=5) | ANYTHING},
    optional=dict.fromkeys(("meta", "name", "versions", "project-status", "alternate-locations"), ANYTHING),
)


def assert_certain(found: Page) -> None:
    assert found.fields["meta"]["api-version"].partition(".")[0] == "1"
    assert "files" not in found.fields
    for one in found.files:
        assert is_filename(one["filename"])
        assert "/" not in one["filename"]
        assert one["url"].isprintable()
        parts = urlsplit(one["url"])
        assert (parts.scheme in ("http", "https"), parts.fragment, "#" in one["url"]) == (True, "", False)
        assert all(isinstance(value, str) for pair in one["hashes"].items() for value in pair)
        assert place(one).rpartition("/")[2] == one["filename"]
        json.dumps(storable(one), allow_nan=False)
    json.dumps([found.fields, found.files], allow_nan=False)


@given(PAGES | ANYTHING)
def test_any_json(data: Any) -> None:
    try:
        found = of_json(data)
    except InvalidPage:
        return
    assert_certain(found)


@given(
    st.binary() | st.text().map(str.encode),
    st.sampled_from([JSON_TYPE, "text/html", "text/html; charset=utf-7"]) | st.text(),
)
def test_any_bytes(content: bytes, content_type: str) -> None:
    try:
        found = read(content, content_type, url=URL, project="demo")
    except InvalidPage:
        return
    assert_certain(found)


TAGS = st.sampled_from(
    ["<a ", "<base ", "<meta ", ">", "</a>", "<!--", "<![", "<!x", "&#", "href=", "content=", "name="]
)
HREFS = st.sampled_from(
    ["'demo-1.zip'", '"//["', "'http://[::1/demo-1.zip'", "'pypi:tracks'", "data-yanked", "data-size=1"]
)


@given(st.lists(TAGS | HREFS | st.text(max_size=5), max_size=30).map("".join))
def test_any_html(text: str) -> None:
    try:
        found = read(text.encode(errors="replace"), "text/html", url=URL, project="demo")
    except InvalidPage:
        return
    assert_certain(found)


# Names


@pytest.mark.parametrize(
    ("filename", "first"),
    [
        (WHEEL, "demo"),
        (f"{WHEEL}.metadata", "demo"),
        ("demo_dep-1.0-py3-none-any.whl", "demo_dep"),
        ("demo-dep-1.0.tar.gz", "demo-dep"),
        ("demo-dep-v1.tar.gz", "demo-dep"),
        ("demo-2-1.0.zip", "demo"),
        ("demo.zip", None),
    ],
)
def test_the_likeliest_project_of_a_file(filename: str, first: str | None) -> None:
    assert next(project_candidates(filename), None) == first


def test_every_project_that_a_file_may_belong_to() -> None:
    assert list(project_candidates("demo-2-1.0.zip")) == ["demo", "demo-2"]
