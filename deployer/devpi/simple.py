"""Pages of the simple API (PEP 503, PEP 691) of any index, read from HTML or JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from packaging.utils import canonicalize_name

from deployer.protocol import is_sha256, parsed

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file of a page. ``url``: absolute, without a fragment. ``sha256``: hex, empty when the page has none."""

    filename: str
    url: str
    sha256: str = ""


def projects(content: bytes, kind: str, *, url: str) -> tuple[str, ...]:
    """The addresses of the pages of all projects. ``kind``: media type; ``url``: of the list. Raises ValueError."""
    if "json" in kind:
        names = [one.get("name") for one in _list(content, "projects")]
        return tuple(urljoin(url, f"{canonicalize_name(name)}/") for name in names if isinstance(name, str))
    found = (urljoin(url, href).partition("#")[0] for href in _anchors(content))
    return tuple(dict.fromkeys(page for page in found if page.startswith(url) and page != url))


def files(content: bytes, kind: str, *, url: str) -> tuple[Link, ...]:
    """The files of a project's page. Raises ValueError."""
    if "json" in kind:
        return tuple(link for one in _list(content, "files") if (link := _of_json(one, url)) is not None)
    return tuple(link for href in _anchors(content) if (link := _of_html(href, url)) is not None)


def _list(content: bytes, key: str) -> list[dict[str, Any]]:
    told = parsed(content)
    found = told.get(key) if isinstance(told, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"no list of {key}")
    return [one for one in found if isinstance(one, dict)]


def _of_json(one: dict[str, Any], base: str) -> Link | None:
    url, hashes = one.get("url"), one.get("hashes")
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else ""
    return _link(base, url, sha256 if isinstance(sha256, str) else "") if isinstance(url, str) else None


def _of_html(href: str, base: str) -> Link | None:
    fragment = href.partition("#")[2]
    return _link(base, href, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "")


def _link(base: str, href: str, sha256: str) -> Link | None:
    try:
        url = urljoin(base, href.strip()).partition("#")[0]
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return None
    if not filename or not url.isprintable() or not filename.isprintable() or "/" in filename:
        return None
    return Link(filename=filename, url=url, sha256=sha256 if is_sha256(sha256) else "")


def _anchors(content: bytes) -> Iterator[str]:
    parser = _Parser()
    try:
        parser.feed(content.decode("utf-8", "replace"))
        parser.close()
    except AssertionError as error:  # html.parser raises it for some declarations
        raise ValueError(str(error)) from None
    return iter(parser.found)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (href := dict(attrs).get("href")):
            self.found.append(href)
