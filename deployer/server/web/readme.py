"""The description of a project as HTML that is safe to show, and that asks nobody for anything.

comrak reads Markdown, and docutils reStructuredText; nh3 keeps of their HTML what is in the lists here. readme_renderer
puts the same three together, and Pygments: a description of 10 kB can occupy it for minutes. Pictures are replaced by
their text: they would tell their servers who reads the page, and can't be had offline.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from functools import lru_cache
from html import escape
from html.parser import HTMLParser
from typing import Any

LONGEST = 60_000
"""Characters of Markdown that are read; a longer text is shown as it is."""
LONGEST_RST = 30_000
"""The same of reStructuredText, of which docutils reads about 20 kB a second."""
LARGEST = 150_000
"""Characters that a page shows of one description."""
LEVELS = 100
"""Elements in one another. nh3 takes seconds for some thousands."""
REMEMBERED = 32
"""Descriptions of which the HTML is kept in memory."""
PATIENCE = 2.0
"""Seconds that a page waits until docutils has read another description."""
_TAGS = {
    *("a", "abbr", "b", "blockquote", "br", "cite", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1"),
    *("h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "ol", "p", "pre", "q", "s", "samp", "small"),
    *("span", "strike", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt"),
    *("ul", "var"),
}
_ATTRIBUTES = {
    "a": {"href"},
    "abbr": {"title"},
    "img": {"alt"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
}
RELATION = "nofollow noopener noreferrer ugc"
_SCHEMES = {"http", "https", "mailto"}
_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6"}
"""The page's own headings are above those of a description."""


_ELEMENT = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_WITHOUT_END = frozenset(
    {"br", "hr", "img", "input", "p", "li", "dt", "dd", "td", "th", "tr", "thead", "tbody", "tfoot"}
)
"""Elements that end by themselves."""
_turn = threading.Lock()


def html(text: str, content_type: str) -> str:
    """``text`` as safe HTML; empty for an empty one. ``content_type``: as METADATA says it, empty where it does not."""
    if not text.strip():
        return ""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/markdown" and len(text) <= LONGEST:
        return _of_markdown(text)
    if kind in ("text/x-rst", "") and len(text) <= LONGEST_RST and _turn.acquire(timeout=PATIENCE):
        try:
            return _of_rst(text)
        finally:
            _turn.release()
    return plain(text)


def plain(text: str) -> str:
    return f'<pre tabindex="0">{escape(text[:LARGEST])}</pre>'


@lru_cache(maxsize=REMEMBERED)
def _of_markdown(text: str) -> str:
    import comrak

    extensions = comrak.ExtensionOptions()
    extensions.autolink = extensions.strikethrough = extensions.table = extensions.tagfilter = True
    rendering = comrak.RenderOptions()
    rendering.unsafe_ = True  # what is harmful is taken out below
    return _safe(comrak.render_markdown(text, extension_options=extensions, render_options=rendering), text)


_OF_DOCUTILS: dict[str, Any] = {
    "file_insertion_enabled": False,  # no file of this server is read
    "raw_enabled": False,
    "halt_level": 2,  # a text with an error is no reStructuredText
    "report_level": 5,
    "warning_stream": False,
    "doctitle_xform": False,
    "initial_header_level": 1,
    "strip_comments": True,
    "syntax_highlight": "none",
    "math_output": "LaTeX",
    "line_length_limit": 5000,
    "_disable_config": True,  # no docutils.conf
}


@lru_cache(maxsize=REMEMBERED)
def _of_rst(text: str) -> str:
    from docutils.core import publish_parts
    from docutils.utils import SystemMessage

    try:
        parts = publish_parts(text, writer="html5", settings_overrides=_OF_DOCUTILS)
    except (SystemMessage, RecursionError, ValueError, LookupError, AttributeError, TypeError):
        return plain(text)
    return _safe(str(parts["fragment"]), text)


def _safe(rendered: str, text: str) -> str:
    """Safe HTML of a description; the description as it is where that would be too much."""
    found = clean(rendered) if len(rendered) <= LARGEST * 2 else None
    return plain(text) if found is None else found


def clean(rendered: str) -> str | None:
    """Only harmless elements of any HTML; None for too much of it."""
    import nh3

    if _levels(rendered) > LEVELS:
        return None
    safe = nh3.clean(
        rendered,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel=RELATION,
        strip_comments=True,
        filter_style_properties=set(),
    )
    shown = _Shown()
    shown.feed(safe)
    shown.close()
    return "".join(shown.parts) if shown.length <= LARGEST else None


def _levels(rendered: str) -> int:
    """How many elements are in one another, at least as many as a browser would find."""
    most = 0
    opened: Counter[str] = Counter()
    for found in _ELEMENT.finditer(rendered):
        name = found[2].lower()
        if name in _WITHOUT_END:
            continue
        if not found[1]:
            opened[name] += 1
            most = max(most, opened.total())
        elif opened[name]:
            opened[name] -= 1
    return most


class _Shown(HTMLParser):
    """Rewrites harmless HTML: lower headings, texts of pictures, links that lead elsewhere or nowhere."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.length = 0
        self._links: list[bool] = []  # of each open `a`, whether it is written

    def _add(self, part: str) -> None:
        self.parts.append(part)
        self.length += len(part)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs if name in _ATTRIBUTES.get(tag, ())}
        if tag == "img":
            if alt := given.get("alt", "").strip():
                self._add(f'<span class="picture">{escape(alt)}</span>')
            return
        if tag == "a":
            # A relative address is one of a repository, or of a part of this text, whose names are taken out.
            leads = given.get("href", "").lower().startswith(("http://", "https://", "mailto:"))
            self._links.append(leads)
            if not leads:
                return
            given["rel"] = RELATION
        if tag in ("table", "pre"):  # may be wider than the page: scrolled by the keyboard, too
            given["tabindex"] = "0"
        written = "".join(f' {name}="{escape(value)}"' for name, value in given.items())
        self._add(f"<{_HEADINGS.get(tag, tag)}{written}>")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._links and not self._links.pop():
            return
        self._add(f"</{_HEADINGS.get(tag, tag)}>")

    def handle_data(self, data: str) -> None:
        self._add(escape(data))
