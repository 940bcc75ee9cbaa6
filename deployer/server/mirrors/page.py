"""An upstream's page of a project, as data: read from JSON (PEP 691) or HTML (PEP 503), with every field kept.

``files`` are the file objects of PEP 691, as the upstream gave them, with these certainties: ``filename`` is a plain
file name, ``url`` is absolute, with its query and without a fragment, and ``hashes`` is an object of strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from deployer.protocol import parsed
from deployer.server.devpi.links import CHECKED

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPES = ("text/html", "application/vnd.pypi.simple.v1+html")
TYPES = (JSON_TYPE, *HTML_TYPES)
"""Media types of pages (PEP 691); pip accepts the same."""
ACCEPT = ", ".join((JSON_TYPE, "application/vnd.pypi.simple.v1+html;q=0.2", "text/html;q=0.01"))
ATTRIBUTES = "html-attributes"
"""Of a file from an HTML page: the ``data-`` attributes that no PEP names, for HTML clients. Never sent as JSON."""
_FILENAME = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_HASHES = frozenset({*CHECKED, "blake2b_256"})
_ARCHIVE = re.compile(
    r".\.(?:whl|zip|egg|exe|msi|deb|rpm|dmg|tar|tgz|tbz|txz|tlz|tar\.(?:gz|bz2|xz|lz|lzma|z|zst))$", re.IGNORECASE
)
_DATA = re.compile(r"data-[a-z0-9._-]+")
_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LIMIT = 200
"""Characters of an upstream's text that a message shows."""

File = dict[str, Any]


class InvalidPage(ValueError):
    """The answer is no page of a project; the message says why."""


@dataclass(frozen=True)
class Page:
    """``fields``: the top level of PEP 691 without ``files``. ``texts``: each file as JSON, where that is known."""

    fields: dict[str, Any]
    files: list[File]
    texts: list[str] | None = None


def media_type(content_type: str) -> str:
    """The media type of a ``Content-Type``, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def read(content: bytes, content_type: str, *, url: str, project: str) -> Page:
    """Read the answer of ``url``, the address after redirects. Raises InvalidPage."""
    kind = media_type(content_type)
    try:
        if kind == JSON_TYPE:
            return _of_json(parsed(content), url)
        if kind in HTML_TYPES:
            return _of_html(content, content_type, url=url, project=project)
    except InvalidPage:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, LookupError, RecursionError, AssertionError) as error:
        raise InvalidPage(f"{type(error).__name__}: {str(error)[:_LIMIT]}") from None
    raise InvalidPage(f"content type {kind[:_LIMIT]!r}")


def _of_json(data: Any, url: str) -> Page:
    version = str(data["meta"].get("api-version", "1.0"))
    if version.partition(".")[0] != "1":
        raise InvalidPage(f"API version {version[:_LIMIT]!r}")
    files = data.pop("files")
    return Page(data, [file for file in (_file(found, url) for found in files) if file])


def _file(found: File, base: str) -> File | None:
    """``found`` with an absolute address, which comes first; None for an invalid file object."""
    name, address, hashes = found["filename"], found["url"], found.get("hashes")
    if not isinstance(name, str) or not is_filename(name):
        return None
    if not address.startswith(("https://", "http://")):
        address = urljoin(base, address)
        if not address.startswith(("https://", "http://")):
            return None
    if "#" in address:
        address = address.partition("#")[0]
    made = {"url": address, **found}
    made["url"] = address
    made.pop(ATTRIBUTES, None)  # it is ours, and written as HTML
    if type(hashes) is not dict:
        made["hashes"] = {}
    return made


def is_archive(name: str) -> bool:
    """Whether ``name`` is that of a file that an index has for installers."""
    return _ARCHIVE.search(name) is not None


def is_filename(name: str) -> bool:
    """Whether ``name`` is the name of a file in one directory."""
    return _FILENAME.fullmatch(name) is not None and not name.startswith(".") and name.isprintable()


def project_candidates(filename: str) -> Iterator[str]:
    """The names, not normalised, of projects that a file of this name may belong to; the likeliest first."""
    stem = filename.removesuffix(".metadata")
    if stem.endswith((".whl", ".egg")):
        yield stem.partition("-")[0]
        return
    likely = re.match(r"(.+?)-(?=\d)", stem)
    if likely:
        yield likely[1]
    for dash in reversed([found.start() for found in re.finditer("-", stem)]):
        if likely is None or stem[:dash] != likely[1]:
            yield stem[:dash]


# HTML


def _of_html(content: bytes, content_type: str, *, url: str, project: str) -> Page:
    header = Message()
    header["Content-Type"] = content_type
    parser = _Parser(url)
    parser.feed(content.decode(header.get_content_charset("utf-8"), "replace"))
    parser.close()
    metas = parser.metas
    fields: dict[str, Any] = {
        "meta": {"api-version": next(iter(metas.get("pypi:repository-version", ())), "1.0")},
        "name": project,
    }
    if fields["meta"]["api-version"].partition(".")[0] != "1":
        raise InvalidPage(f"API version {fields['meta']['api-version'][:_LIMIT]!r}")
    if "pypi:tracks" in metas:
        fields["meta"]["tracks"] = metas["pypi:tracks"]
    if "pypi:alternate-locations" in metas:
        fields["alternate-locations"] = metas["pypi:alternate-locations"]
    if "pypi:project-status" in metas:
        fields["project-status"] = {"status": metas["pypi:project-status"][0]}
        if "pypi:project-status-reason" in metas:
            fields["project-status"]["reason"] = metas["pypi:project-status-reason"][0]
    return Page(fields, parser.files)


class _Parser(HTMLParser):
    """Collects the anchors and the ``pypi:`` meta elements of a page."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._base = url
        self._based = False
        self.files: list[File] = []
        self.metas: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            file = _anchor(dict(attrs), self._base)
            if file is not None:
                self.files.append(file)
        elif tag == "base" and not self._based:
            href = dict(attrs).get("href")
            if href:
                self._base, self._based = urljoin(self._base, href.strip()), True
        elif tag == "meta":
            found = dict(attrs)
            name, content = found.get("name") or "", found.get("content")
            if name.startswith("pypi:") and content:
                self.metas.setdefault(name, []).append(content)


def _anchor(attrs: dict[str, str | None], base: str) -> File | None:
    href = (attrs.get("href") or "").strip()
    try:
        address, _, fragment = urljoin(base, href).partition("#")
        filename = unquote(urlsplit(address).path.rpartition("/")[2])
    except ValueError:
        return None
    if not address.startswith(("https://", "http://")) or not is_archive(filename) or not is_filename(filename):
        return None
    file: File = {"url": address, "filename": filename, "hashes": _hashes(fragment)}
    for name, value in attrs.items():
        if not _DATA.fullmatch(name):
            continue
        match name:
            case "data-requires-python":
                if value:
                    file["requires-python"] = value
            case "data-yanked":
                # Without a value it is a yanked file to uv and to PEP 592, but not to pip. In JSON they differ in the
                # same way about an empty string.
                file["yanked"] = "" if value is None else value or True
            case "data-core-metadata" | "data-dist-info-metadata":
                file[name.removeprefix("data-")] = _promise(value)
            case "data-size":  # in no standard, as the next one; uv reads both
                if value and value.isdecimal():
                    file["size"] = int(value)
            case "data-upload-time":
                if value and _TIME.fullmatch(value):  # pip and uv refuse a JSON page with another
                    file["upload-time"] = value
            case "data-gpg-sig":
                file["gpg-sig"] = value != "false"
            case "data-provenance":
                if value:
                    file["provenance"] = urljoin(base, value)
            case _:
                file.setdefault(ATTRIBUTES, {})[name] = value
    return file


def _promise(value: str | None) -> bool | dict[str, str]:
    kind, equals, hexadecimal = (value or "").partition("=")
    return {kind: hexadecimal} if equals else value != "false"


def _hashes(fragment: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in fragment.split("&"))
    return {kind: value for kind, _, value in pairs if kind in _HASHES and value}
