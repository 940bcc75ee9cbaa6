"""Descriptions of projects are anybody's text: what reaches a page of ours of it is harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.web import readme

MARKDOWN, RST = "text/markdown", "text/x-rst"
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://spy.example.com/p.gif' alt='badge'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='JaVa\tScRiPt:alert(1)'>x</a>",
    "<a href=' data:text/html,<script>alert(1)</script>'>x</a>",
    "<svg><script>alert(1)</script></svg>",
    "<style>body{display:none}</style>",
    "<p style='position:fixed' class='banner' id='main'>x</p>",
    "<form action='/+login'><input name=password></form>",
    "<iframe src='https://evil.example.com'></iframe>",
    "<div hx-get='/+web/search' hx-trigger='load' data-hx-get='/'>x</div>",
    "<base href='https://evil.example.com/'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example.com'>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "</div></main></body><h1>out</h1>",
    "<!--><script>alert(1)</script>-->",
    "[x](javascript:alert(1)) [y](vbscript:x) [z](//evil.example.com)",
    "![x](https://spy.example.com/p.gif)",
]
ALLOWED = {"href", "rel", "title", "start", "colspan", "rowspan", "tabindex", "class"}


class Checked(HTMLParser):
    """Raises AssertionError for what a page of ours must not have."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in readme._TAGS - {"img", "h1", "h2"}, tag
        for name, value in attrs:
            assert name in ALLOWED, (tag, name)
            assert name != "class" or (tag, value) == ("span", "picture")
            assert name != "href" or re.match(r"(?:https?://|mailto:)", value or ""), value

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    handle_comment = unknown_decl = handle_pi = handle_decl


def check(text: str) -> str:
    parser = Checked()
    parser.feed(text)
    parser.close()
    return text


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", [MARKDOWN, RST, "text/plain", ""])
def test_hostile_descriptions_are_harmless(text: str, kind: str) -> None:
    check(readme.html(text, kind))
    check(readme.html(f"Title\n=====\n\n.. raw:: html\n\n   {text}\n\n.. include:: /etc/passwd\n", kind))
    check(readme.clean(text) or "")


@given(st.text(alphabet=st.sampled_from("<>/ \"'=&;ahrefscripton:jv![]()#`*\n"), max_size=200))
def test_random_markup_is_harmless(text: str) -> None:
    check(readme.clean(text) or "")


def test_what_is_useful_stays() -> None:
    text = readme.html("# Demo\n\n[home](https://example.com) `code` ![build](b.svg)\n\n|a|\n|-|\n|1|\n", MARKDOWN)
    assert "<h3>Demo" in text and 'href="https://example.com"' in text and "nofollow" in text
    assert '<span class="picture">build</span>' in text and '<table tabindex="0">' in text
    assert "<em>here</em>" in readme.html("Text *here*.", RST)


def test_a_file_of_the_server_is_never_read() -> None:
    assert "root:" not in readme.html(".. include:: /etc/passwd\n\n.. csv-table::\n   :file: /etc/passwd\n", RST)


def test_plain_and_broken_texts_are_shown_as_they_are() -> None:
    assert readme.html("a < b", "text/plain") == readme.plain("a < b") == '<pre tabindex="0">a &lt; b</pre>'
    assert readme.html("`broken", RST) == readme.plain("`broken")
    assert readme.html("  \n", MARKDOWN) == ""


TOO_MUCH = {
    "long": ("# x\n" * 20_000, MARKDOWN),
    "quotes in quotes": ("> " * 5_000 + "x", MARKDOWN),
    "elements in elements": ("<div>" * 5_000, MARKDOWN),
    "long reStructuredText": ("x " * 20_000, RST),
    "a text that grows": (".. |a| replace:: " + "x" * 1000 + "\n\n" + "|a| " * 1000, RST),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_would_occupy_the_server_is_shown_as_it_is(case: str) -> None:
    text, kind = TOO_MUCH[case]
    assert readme.html(text, kind) == readme.plain(text)


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "![[" * 7_000, "`" * 20_000, "|a|" * 5_000, "<" * 20_000, "*a **b " * 3_000]
)
def test_long_and_strange_texts_come_to_an_end(text: str) -> None:
    for kind in (MARKDOWN, RST):
        assert len(check(readme.html(text, kind))) <= 5 * readme.LARGEST
