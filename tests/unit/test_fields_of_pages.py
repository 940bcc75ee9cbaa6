"""Fields of upstreams' pages, read and written without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployer.server.mirrors.page import Page, read
from deployer.server.mirrors.render import Listed, Part, to_html, to_json
from tests.pages import FRAGMENT, HtmlPage, html_page, json_page, row
from tests.upstream import Answer, make_sdist

SDIST = make_sdist("demo", "1.0")  # nothing is promised for it that its page does not say
URL = "https://upstream.example/simple/demo/"


def page_of(answer: Answer) -> Page:
    return read(answer.body, answer.kind, url=URL, project="demo")


def to_clients(page: Page) -> tuple[Any, HtmlPage]:
    """The page as clients of JSON and of HTML get it."""
    part = Part(page.fields, [Listed(file, f"root/pypi/+f/{file['filename']}") for file in page.files])
    return json.loads(to_json(part, "../../../")), HtmlPage.read(to_html(part, "../../../", title="demo"))


def of_attributes(attributes: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A file from an HTML page, as JSON and as attributes, without address and hash."""
    told, html = to_clients(page_of(html_page(row(SDIST, attributes=attributes))))
    file, written = told["files"][0], html.attributes[SDIST.filename]
    assert file.pop("hashes") == {"sha256": SDIST.sha256}
    assert written.pop(FRAGMENT) == f"sha256={SDIST.sha256}"
    assert file.pop("url").startswith("../../../root/pypi/")
    assert file.pop("filename") == SDIST.filename
    return file, written


@pytest.mark.parametrize(
    ("attributes", "file", "written"),
    [
        ("data-yanked", {"yanked": ""}, {"data-yanked": ""}),
        ('data-yanked=""', {"yanked": True}, {"data-yanked": ""}),
        ('data-yanked="a &lt; b"', {"yanked": "a < b"}, {"data-yanked": "a < b"}),
        ('data-requires-python="&gt;=3"', {"requires-python": ">=3"}, {"data-requires-python": ">=3"}),
        (
            "data-core-metadata",
            {"core-metadata": True},
            {"data-core-metadata": "true", "data-dist-info-metadata": "true"},
        ),
        (
            'data-dist-info-metadata="sha256=00"',
            {"core-metadata": {"sha256": "00"}},
            {"data-core-metadata": "sha256=00", "data-dist-info-metadata": "sha256=00"},
        ),
        (
            'data-dist-info-metadata="true" data-core-metadata="sha256=00"',
            {"core-metadata": {"sha256": "00"}},
            {"data-core-metadata": "sha256=00", "data-dist-info-metadata": "sha256=00"},
        ),
        ('data-gpg-sig="false"', {"gpg-sig": False}, {"data-gpg-sig": "false"}),
        ('data-size="7"', {"size": 7}, {"data-size": "7"}),
        ('data-size="many"', {}, {}),
        (
            'data-upload-time="2024-01-02T03:04:05.678Z"',
            {"upload-time": "2024-01-02T03:04:05.678Z"},
            {"data-upload-time": "2024-01-02T03:04:05.678Z"},
        ),
        ('data-upload-time="yesterday"', {}, {}),
        ('data-acme="kept" onclick="alert(1)"', {}, {"data-acme": "kept"}),
        ("data-a\"b'<c=1", {}, {}),
    ],
)
def test_attributes_of_a_link(attributes: str, file: dict[str, Any], written: dict[str, str]) -> None:
    assert of_attributes(attributes) == (file, written)


def test_an_attribute_without_a_value_stays_without_one() -> None:
    """pip takes only one with a value."""
    for attributes, found in (("data-yanked", b" data-yanked>"), ('data-yanked=""', b' data-yanked="">')):
        page = page_of(html_page(row(SDIST, attributes=attributes)))
        part = Part(page.fields, [Listed(file, "root/pypi/x") for file in page.files])
        assert found in to_html(part, "", title="demo")


def test_json_writes_no_attributes_of_its_choice() -> None:
    file = {"filename": SDIST.filename, "url": "/x", "hashes": {}, "html-attributes": {'x="><script>': "y"}}
    told, html = to_clients(page_of(json_page("demo", [file])))
    assert "html-attributes" not in told["files"][0]
    assert html.attributes[SDIST.filename] == {}
