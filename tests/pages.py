"""Pages of projects as an index sends them, in JSON (PEP 691) and HTML (PEP 503), and HTML pages read back."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.upstream import HTML_TYPE, JSON_TYPE, Answer, Distribution, Request, Script

File = dict[str, Any]
FRAGMENT = "#"
"""The name under which the fragment of a link stands among its attributes."""


def file_of(distribution: Distribution, url: str, **more: Any) -> File:
    """A file object with its SHA-256; ``more``: keys with ``_`` for ``-``."""
    told = {"filename": distribution.filename, "url": url, "hashes": {"sha256": distribution.sha256}}
    return {**told, **{key.replace("_", "-"): value for key, value in more.items()}}


def json_page(project: str, files: Sequence[File], top: Mapping[str, Any] | None = None, **headers: str) -> Answer:
    """``top``: the top level without ``files``. ``headers``: names with ``_`` for ``-``."""
    told = {"meta": {"api-version": "1.1"}, "name": project, **(top or {}), "files": list(files)}
    return Answer(body=json.dumps(told).encode(), kind=JSON_TYPE, headers=_spelled(headers))


def html_page(rows: str, head: str = "", *, kind: str = HTML_TYPE, **headers: str) -> Answer:
    """``headers``: names with ``_`` for ``-``."""
    body = f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{rows}\n</body></html>\n"
    return Answer(body=body.encode(), kind=kind, headers=_spelled(headers))


def row(distribution: Distribution, href: str = "", attributes: str = "", *, hashed: bool = True) -> str:
    """A link to a file; to ``/files/…`` when no ``href`` is given."""
    fragment = f"#sha256={distribution.sha256}" if hashed else ""
    address = html.escape(href or f"/files/{distribution.filename}")
    return f'<a href="{address}{fragment}" {attributes}>{distribution.filename}</a><br>\n'


def either(as_json: Answer, as_html: Answer) -> Script:
    """The page in the form that the client accepts."""

    def answer(request: Request) -> Answer:
        return as_json if JSON_TYPE in request.headers.get("accept", "") else as_html

    return answer


def _spelled(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


# Between JSON and HTML, as the standards say it


def metas_of(page: Mapping[str, Any]) -> dict[str, list[str]]:
    """The meta elements for the top level of a JSON page, by name (PEP 629, 708, 792)."""
    meta, status = page["meta"], page.get("project-status", {})
    told = {
        "pypi:repository-version": [meta["api-version"]],
        "pypi:tracks": meta.get("tracks", []),
        "pypi:alternate-locations": page.get("alternate-locations", []),
        "pypi:project-status": [status[key] for key in ("status",) if key in status],
        "pypi:project-status-reason": [status[key] for key in ("reason",) if key in status],
    }
    return {name: list(values) for name, values in told.items() if values}


def attributes_of(file: File) -> dict[str, str]:
    """The attributes of a link for a file object (PEP 503, 592, 658, 714, 740), with its fragment.

    ``data-size`` and ``data-upload-time`` stand in no standard; uv reads them.
    """
    told: dict[str, str] = {}
    if file["hashes"]:
        kind = "sha256" if "sha256" in file["hashes"] else next(iter(file["hashes"]))
        told[FRAGMENT] = f"{kind}={file['hashes'][kind]}"
    for key in ("requires-python", "provenance", "upload-time"):
        if file.get(key):
            told[f"data-{key}"] = file[key]
    if "size" in file:
        told["data-size"] = str(file["size"])
    if "gpg-sig" in file:
        told["data-gpg-sig"] = "true" if file["gpg-sig"] else "false"
    if file.get("yanked"):
        told["data-yanked"] = file["yanked"] if isinstance(file["yanked"], str) else ""
    for key in ("core-metadata", "dist-info-metadata"):
        if value := file.get(key):
            told[f"data-{key}"] = "true" if value is True else "=".join(next(iter(value.items())))
    return told


def written(page: Mapping[str, Any], extra: str = "") -> Answer:
    """A JSON page's content as HTML. ``extra``: more attributes for each link."""
    head = [
        f'<meta name="{name}" content="{html.escape(value)}">'
        for name, values in metas_of(page).items()
        for value in values
    ]
    rows = []
    for file in page["files"]:
        told = attributes_of(file)
        href = html.escape(file["url"]) + (f"#{told.pop(FRAGMENT)}" if FRAGMENT in told else "")
        attributes = " ".join(f'{name}="{html.escape(value)}"' for name, value in told.items())
        rows.append(f'<a href="{href}" {attributes} {extra}>{file["filename"]}</a><br>')
    return html_page("\n".join(rows), "\n".join(head))


@dataclass
class HtmlPage(HTMLParser):
    """An HTML page, read: the contents of its ``pypi:`` meta elements, and its links by file name."""

    metas: dict[str, list[str]] = field(default_factory=dict)
    hrefs: dict[str, str] = field(default_factory=dict)  # without the fragment
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, body: bytes) -> HtmlPage:
        page = cls()
        HTMLParser.__init__(page)
        page.feed(body.decode())
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "meta" and told.get("name", "").startswith("pypi:"):
            self.metas.setdefault(told["name"], []).append(told["content"])
        elif tag == "a":
            href, _, fragment = told.pop("href").partition("#")
            name = unquote(urlsplit(href).path.rpartition("/")[2])
            assert name not in self.hrefs, f"{name} stands twice on the page"
            self.hrefs[name] = href
            kept = {key: value for key, value in told.items() if key.startswith("data-")}
            self.attributes[name] = {**({FRAGMENT: fragment} if fragment else {}), **kept}
