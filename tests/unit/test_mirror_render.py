"""Pages as clients get them: every field comes back from JSON and HTML, and merged pages follow PEP 700."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import given

from deployer.server.mirrors.page import ATTRIBUTES, JSON_TYPE, InvalidPage, Page, is_archive, read
from deployer.server.mirrors.render import Listed, Part, for_client, merged, promised, to_html, to_json
from tests.unit.test_mirror_page import PAGES, SHA256, SHA512, WHEEL, file, of_json, page

OURS = "https://ours.example.com/root/pypi/+simple/demo/"
UP = "../../../../"
HOSTILE = {
    "meta": {"api-version": "1.4", "tracks": [1, "https://example.com/"], "x": [None]},
    "name": ["demo"],
    "versions": {"1.0": 1},
    "alternate-locations": "https://example.com/",
    "project-status": {"status": ["archived"], "reason": {"a": 1}},
}


def part(found: Page, index: str = "root/pypi") -> Part:
    return Part(found.fields, [Listed(one, f"{index}/+f/abc/def/{one['filename']}") for one in found.files])


def from_json(body: bytes) -> Page:
    return read(body, JSON_TYPE, url=OURS, project="demo")


def from_html(body: bytes) -> Page:
    return read(body, "text/html", url=OURS, project="demo")


def ours(one: dict[str, Any]) -> dict[str, Any]:
    """The file object as a client resolves it: every wheel has metadata."""
    return promised(one, lacks=False) | {"url": f"https://ours.example.com/root/pypi/+f/abc/def/{one['filename']}"}


FULL = file(
    requires_python=">=3.9,<4",
    core_metadata={"sha256": SHA512},
    dist_info_metadata={"sha256": SHA512},
    yanked='broken & <old> "so"',
    size=12,
    upload_time="2026-01-02T03:04:05.678901Z",
    gpg_sig=False,
)
OF_HTML = {
    "meta": {"api-version": "1.4", "tracks": ["https://a.example.com/", "https://b.example.com/?a&b"]},
    "name": "demo",
    "alternate-locations": ["https://c.example.com/"],
    "project-status": {"status": "archived", "reason": '"why" & <so>'},
}


def test_every_field_comes_back_from_json() -> None:
    found = of_json(
        page(FULL, file(hashes={"sha256": SHA256, "md5": "c"}, x=[1, {}]), versions=["1.0"], unknown={"a": 1})
    )
    back = from_json(to_json(part(found), UP))
    assert (back.fields, back.files) == (found.fields, [ours(one) for one in found.files])


def test_every_field_comes_back_from_html() -> None:
    """HTML has one promise of metadata, under both of its names."""
    full = {key: value for key, value in FULL.items() if key != "dist-info-metadata"}
    found = of_json({**OF_HTML, "files": [full, file(hashes={}), file(yanked=True), file(yanked="")]})
    back = from_html(to_html(part(found), UP, title="demo"))
    assert (back.fields, back.files) == (OF_HTML, [ours(one) for one in found.files])


def test_attributes_that_no_standard_names_are_for_html_only() -> None:
    found = Page.of(OF_HTML, [file() | {ATTRIBUTES: {"data-x": 'a"b', "data-y": None, "data-z": ""}}])
    assert from_html(to_html(part(found), UP, title="")).files == [ours(one) for one in found.files]
    assert from_json(to_json(part(found), UP)).files == [ours(file())]


def test_the_provenance_is_ours() -> None:
    one = part(of_json(page(file(provenance="https://elsewhere.example.com/p"))))
    address = "../../../../root/pypi/+f/abc/def/demo-1.0-py3-none-any.whl.provenance"
    assert for_client(one.files[0], UP)["provenance"] == address
    assert f'data-provenance="{address}"'.encode() in to_html(one, UP, title="")
    nothing = part(of_json(page(file(provenance=None))))
    assert for_client(nothing.files[0], UP)["provenance"] is None
    assert b"provenance" not in to_html(nothing, UP, title="")


def test_one_hash_of_several_is_in_html_the_one_that_names_the_file() -> None:
    found = part(of_json(page(file(hashes={"md5": "c", "sha256": SHA256}))))
    assert from_html(to_html(found, UP, title="")).files[0]["hashes"] == {"sha256": SHA256}


@pytest.mark.parametrize(
    "name",
    [
        "demo-1.0+local.zip",
        "demo 1.0.zip",
        "demo-100%25.zip",
        "demo#sha256=x.zip",
        "demo?x=1&y.zip",
        "demo;<b>\"'.zip",
        "d\u00e9mo-\U0001f40d.zip",
        "1!demo@~:.zip",
    ],
)
def test_odd_names_of_files_come_back(name: str) -> None:
    found = part(of_json(page(file(filename=name, core_metadata=True))))
    for back in (from_json(to_json(found, UP)), from_html(to_html(found, UP, title=""))):
        assert back.files[0]["filename"] == name
        assert unquote(back.files[0]["url"]).endswith(f"/root/pypi/+f/abc/def/{name}")


def test_addresses_may_be_absolute() -> None:
    found = part(of_json(page(file())))
    assert (
        from_json(to_json(found, "https://front.example.com/"))
        .files[0]["url"]
        .startswith("https://front.example.com/root/")
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)


def test_what_an_upstream_says_is_no_markup() -> None:
    text = '"><script>alert(1)</script>'
    one = file(
        requires_python=text,
        yanked=text,
        hashes={text: text},
        core_metadata={text: text},
        provenance=text,
        filename=f"{text.replace('/', '')}.zip",
        upload_time=text,
    )
    found = part(of_json(page(one, meta={"api-version": f"1.{text}"}, project_status={"status": text, "reason": text})))
    tags = Tags()
    tags.feed(to_html(found, UP, title=text).decode())
    assert "script" not in tags.names


def test_wrong_types_come_through_as_json_and_leave_html_whole() -> None:
    one = file(
        requires_python=[">=3"],
        core_metadata={"sha256": 5},
        yanked=["why"],
        size="12",
        upload_time=5,
        gpg_sig="yes",
        provenance={},
    )
    found = of_json({**HOSTILE, "files": [one]})
    back = from_json(to_json(part(found), UP))
    assert (back.fields, back.files) == (found.fields, [ours(one)])
    back = from_html(to_html(part(found), UP, title=""))
    assert back.fields == {"meta": {"api-version": "1.4", "tracks": ["https://example.com/"]}, "name": "demo"}
    assert back.files == [ours(file(core_metadata=True, yanked=True, gpg_sig=True))]


def test_half_a_surrogate_pair_does_not_end_the_page() -> None:
    found = part(of_json(page(file(yanked="a\ud800b"))))
    assert from_json(to_json(found, UP)).files[0]["yanked"] == "a\ud800b"
    assert from_html(to_html(found, UP, title="")).files[0]["yanked"] == "a?b"


@given(PAGES)
def test_any_page_is_rendered(data: Any) -> None:
    try:
        found = of_json(data)
    except InvalidPage:
        return
    alone = part(found)
    both = merged([alone, part(of_json(page(file(), versions=["1.0"])))], name="demo")
    for one in (alone, both, merged([both, alone], name="demo")):
        as_json, as_html = from_json(to_json(one, UP)), from_html(to_html(one, UP, title="demo"))
        names = [listed.file["filename"] for listed in one.files]
        assert [back["filename"] for back in as_json.files] == names
        assert [back["filename"] for back in as_html.files] == [name for name in names if is_archive(name)]
        assert all(
            urljoin(OURS, back["url"]).startswith("https://ours.example.com/root/pypi/") for back in as_html.files
        )


# Merged


def test_merged_as_pep_700_says() -> None:
    stage = Part(
        {"meta": {"api-version": "1.1"}, "name": "Demo", "versions": ["2.0", "1.0"]}, [Listed(file(), "root/dev/x")]
    )
    mirror = Part(
        {
            "meta": {"api-version": "1.10", "_last-serial": 5, "tracks": ["https://example.com/"], "x": 1},
            "name": "demo",
            "versions": ["1.0", "0.9"],
            "project-status": {"status": "archived"},
            "alternate-locations": ["https://example.com/"],
            "unknown": 1,
        },
        [Listed(file(), "root/pypi/x"), Listed(file(filename="demo-0.9.zip"), "root/pypi/y")],
    )
    found = merged([stage, mirror], name="demo")
    assert found.fields == {
        "meta": {"api-version": "1.1", "tracks": ["https://example.com/"], "x": 1},
        "name": "demo",
        "versions": ["2.0", "1.0", "0.9"],
        "project-status": {"status": "archived"},
        "alternate-locations": ["https://example.com/"],
        "unknown": 1,
    }
    assert [listed.path for listed in found.files] == ["root/dev/x", "root/pypi/y"]


def test_the_first_index_counts() -> None:
    first = {
        "meta": {"api-version": "1.4", "tracks": ["a"]},
        "project-status": {"status": "active"},
        "alternate-locations": ["a"],
    }
    second = {
        "meta": {"api-version": "1.4", "tracks": ["b"]},
        "project-status": {"status": "archived"},
        "alternate-locations": ["b", "a"],
    }
    found = merged([Part(first, ()), Part(second, ())], name="demo").fields
    assert found == {**first, "name": "demo", "alternate-locations": ["a", "b"]}


def test_versions_are_left_out_where_one_index_names_none() -> None:
    """A client would take the others for all that there are."""
    old, new = Part({"meta": {"api-version": "1.0"}}, ()), Part({"meta": {"api-version": "1.1"}, "versions": ["1"]}, ())
    for parts in ([old, new], [new, old]):
        assert merged(parts, name="demo").fields == {"meta": {"api-version": "1.0"}, "name": "demo"}


def test_hostile_fields_are_merged() -> None:
    good = Part({"meta": {"api-version": "1.1"}, "name": "demo", "versions": ["1"], "alternate-locations": ["a"]}, ())
    for parts in ([Part(HOSTILE, ()), good], [good, Part(HOSTILE, ())]):
        found = merged(parts, name="demo").fields
        assert (found["versions"], found["alternate-locations"], found["name"]) == (["1"], ["a"], "demo")


def test_a_page_of_one_index_is_as_it_is() -> None:
    one = Part(HOSTILE, ())
    assert merged([one], name="demo") is one


# Addresses of the upstream


def test_a_file_without_a_path_keeps_its_address_and_promises_nothing() -> None:
    """In the canonical view of a mirror."""
    one = file(provenance="https://example.com/p", size=1)
    found = Part(of_json(page(one)).fields, [Listed(one, "")])
    for back in (from_json(to_json(found, UP)), from_html(to_html(found, UP, title=""))):
        assert back.files == [one]
    wrong = Part(found.fields, [Listed(file(provenance={}), "")])
    assert from_html(to_html(wrong, UP, title="")).files == [file()]


# Metadata of wheels


@pytest.mark.parametrize(
    ("fields", "promise"),
    [
        ({}, True),
        ({"core-metadata": {"sha256": SHA256}}, {"sha256": SHA256}),
        ({"dist-info-metadata": {"sha256": SHA256}}, {"sha256": SHA256}),
        ({"core-metadata": False, "dist-info-metadata": True}, True),
        ({"core-metadata": {}}, True),
    ],
)
def test_every_wheel_has_metadata(fields: dict[str, Any], promise: Any) -> None:
    found = promised(file() | fields, lacks=False)
    older = {"dist-info-metadata": promise} if "dist-info-metadata" in fields else {}
    assert found == file() | {"core-metadata": promise} | older


def test_the_older_key_is_not_added() -> None:
    """pip 22.3 to 23.1 takes it for text, and fails on any that JSON can have."""
    (made,) = json.loads(to_json(part(of_json(page(file()))), UP))["files"]
    assert made["core-metadata"] is True
    assert "dist-info-metadata" not in made


def test_but_those_in_which_none_were_found() -> None:
    assert promised(file(core_metadata=True, dist_info_metadata=True), lacks=True) == file()


def test_sdists_are_as_their_upstream_says() -> None:
    for fields in ({}, {"core-metadata": True}):
        sdist = file(filename="demo-1.0.tar.gz") | fields
        assert promised(sdist, lacks=False) == promised(sdist, lacks=True) == sdist


def test_the_body_is_json_as_others_read_it() -> None:
    body = to_json(part(of_json(page(FULL))), UP)
    assert json.loads(body)["files"][0]["url"] == f"../../../../root/pypi/+f/abc/def/{WHEEL}"
