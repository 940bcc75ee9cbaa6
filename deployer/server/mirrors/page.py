"""An upstream's page of a project, as data: read from JSON (PEP 691) or HTML (PEP 503), with every field kept.

The file objects of PEP 691 are as the upstream gave them, with these certainties: ``filename`` is a plain file name,
``url`` is absolute, with its query and without a fragment, and ``hashes`` is an object of strings. File objects that
can't be that are left out, as pip leaves them out. Every other field is passed on, of any type.

A page is kept as text, and one file object at a time is read: twenty thousand of them would take fifty megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from html.parser import HTMLParser
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from deployer.server.devpi.links import CHECKED, digest
from deployer.server.json_text import Raw, dumps, elements, loads, members

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
_SIZE = re.compile(r"\d{1,15}", re.ASCII)
_STRIPPED = re.compile(r"[\t\r\n]")
"""What clients take out of an address (https://url.spec.whatwg.org/#concept-basic-url-parser)."""
_SCHEMES = ("https://", "http://")
_RELATIVE = re.compile(r"(/|(?:\.\./)*)([\w%+~-][\w.%+~/-]*)", re.ASCII)
"""A relative address that is resolved by putting its second part behind what its first part means, if no segment of
the second part is empty or begins with a dot."""
_USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~-]*")
"""The names of most files."""
_LEVELS = 50
"""Objects and lists that may be in one another: each is read, written and read again with less of the stack free."""
_LIMIT = 200
"""Characters of an upstream's text that a message shows."""

_HOLDERS = (dict, list)
_STORED: dict[str, type | tuple[type, ...]] = {"requires-python": str, "upload-time": str, "yanked": (str, bool)}

File = dict[str, Any]


class InvalidPage(ValueError):
    """The answer is no page of a project; the message says why."""


@dataclass(frozen=True)
class Page:
    """``fields``: the top level of PEP 691 without ``files``; its ``meta`` is an object with a version 1 of the API.
    ``lines``: each file object as JSON, with a line feed at its end."""

    fields: dict[str, Any]
    lines: bytes

    @classmethod
    def of(cls, fields: dict[str, Any], files: Iterable[File]) -> Page:
        return cls(fields, _joined(map(dumps, files)))

    def each(self) -> Iterator[File]:
        """Each file object, read when its turn comes."""
        return map(loads, BytesIO(self.lines))

    @property
    def files(self) -> list[File]:
        return list(self.each())

    @property
    def count(self) -> int:
        return self.lines.count(b"\n")


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join([line for text in lines for line in (text, b"\n")])


def media_type(content_type: str) -> str:
    """The media type of a ``Content-Type``, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def read(content: bytes, content_type: str, *, url: str, project: str) -> Page:
    """Read the answer of ``url``, the address after redirects. Raises InvalidPage."""
    kind = media_type(content_type)
    try:
        if kind == JSON_TYPE:
            return _of_json(content, url)
        if kind in HTML_TYPES:
            return _of_html(content, content_type, url=url, project=project)
    except InvalidPage:
        raise
    except (ValueError, LookupError, AssertionError) as error:
        raise InvalidPage(f"{type(error).__name__}: {str(error)[:_LIMIT]}") from None
    raise InvalidPage(f"content type {kind[:_LIMIT]!r}")


def _of_json(content: bytes, url: str) -> Page:
    fields, files = _split(content)
    given = fields.get("meta")
    meta = given if type(given) is dict else {}
    fields["meta"] = {**meta, "api-version": _version(meta.get("api-version") or "1.0")}
    if _nests(fields, _LEVELS):
        raise InvalidPage("nested too deeply")
    lines = _joined(line for file in files if (line := _line(file, url)) is not None)
    if files and not lines:
        raise InvalidPage("none of its files is valid")
    return Page(fields, lines)


def _split(content: bytes) -> tuple[dict[str, Any], list[Any]]:
    """The top level without files, and the file objects, each read or as :class:`Raw`."""
    try:
        found = members(content)
        return {name: loads(value) for name, value in found.items() if name != "files"}, elements(found["files"])
    except (ValueError, KeyError):
        data = loads(content)
        if type(data) is not dict or type(files := data.pop("files", None)) is not list:
            raise InvalidPage("no object with a list of files") from None
        return data, files


def _version(given: object) -> str:
    """The version of the API, for example ``1.1``. Raises InvalidPage for one that is not understood."""
    version = str(given) if isinstance(given, (str, float)) else type(given).__name__
    if version.partition(".")[0] != "1":
        raise InvalidPage(f"API version {version[:_LIMIT]!r}")
    return version


def _line(given: Any, base: str) -> bytes | None:
    """``given`` as JSON, with an absolute address; None for an invalid file object."""
    found = loads(given) if type(given) is Raw else given
    if type(found) is not dict:
        return None
    name, address, hashes = found.get("filename"), found.get("url"), found.get("hashes")
    if type(name) is not str or type(address) is not str or not is_filename(name):
        return None
    found["url"] = address = _absolute(address, base)
    if address is None:
        return None
    found.pop(ATTRIBUTES, None)  # it is ours, and written as HTML
    given = hashes.items() if type(hashes) is dict else ()
    found["hashes"] = {kind: value for kind, value in given if type(value) is str}
    try:
        line = dumps(found)
    except RecursionError:
        return None
    # Counted first: only what has many objects and lists can have many in one another.
    return None if line.count(b"{") + line.count(b"[") > _LEVELS and _nests(found, _LEVELS) else line


def _absolute(address: str, base: str) -> str | None:
    """The address without its fragment; None for one from which no client gets a file."""
    try:
        if not address.startswith(_SCHEMES):
            address = _joined_to(base, address)
        if "[" in address or not address.isascii():
            urlsplit(address)  # raises ValueError for an invalid host
    except ValueError:
        return None
    address = address.partition("#")[0]
    if not address.isprintable():
        address = _STRIPPED.sub("", address)
    return address if address.startswith(_SCHEMES) and address.isprintable() else None


def _joined_to(base: str, address: str) -> str:
    """``address``, which is relative to ``base``. Raises ValueError."""
    plain = _RELATIVE.fullmatch(address)
    if plain is not None and "//" not in plain[2] and "/." not in plain[2]:
        return _resolved(base, plain[1]) + plain[2]
    scheme, colon, rest = urljoin(base, address).partition(":")
    return f"{scheme.lower()}{colon}{rest}"


@lru_cache(64)
def _resolved(base: str, start: str) -> str:
    """What a relative address that starts like this starts with: the links of a page start alike."""
    scheme, colon, rest = urljoin(base, start or "./").partition(":")
    return f"{scheme.lower()}{colon}{rest}"


def _nests(found: Any, levels: int) -> bool:
    """Whether there is more in one another than ``levels``. ``found``: an object or a list."""
    inner = (value for value in (found.values() if type(found) is dict else found) if type(value) in _HOLDERS)
    return levels <= 0 or any(_nests(value, levels - 1) for value in inner)


def size_of(file: File) -> int | None:
    """The bytes of a file, where its page says them."""
    size = file.get("size")
    return size if type(size) is int and 0 <= size < 1 << 63 else None


def storable(file: File) -> File:
    """What devpi stores of a file: fields of the right types, and the one hash that names its place."""
    found = digest(file)
    made: File = {"filename": file["filename"], "url": file["url"], "hashes": dict([found] if found else ())}
    for name, kinds in _STORED.items():
        if file.get(name) and isinstance(file[name], kinds):
            made[name] = file[name]
    size = size_of(file)
    return made if size is None else made | {"size": size}


def is_archive(name: str) -> bool:
    """Whether ``name`` is that of a file that an index has for installers."""
    return _ARCHIVE.search(name) is not None


def is_filename(name: str) -> bool:
    """Whether ``name`` is the name of a file in one directory."""
    if _USUAL.fullmatch(name):
        return True
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
    version = _version(next(iter(metas.get("pypi:repository-version", ())), "1.0"))
    fields: dict[str, Any] = {"meta": {"api-version": version}, "name": project}
    if "pypi:tracks" in metas:
        fields["meta"]["tracks"] = metas["pypi:tracks"]
    if "pypi:alternate-locations" in metas:
        fields["alternate-locations"] = metas["pypi:alternate-locations"]
    if "pypi:project-status" in metas:
        fields["project-status"] = {"status": metas["pypi:project-status"][0]}
        if "pypi:project-status-reason" in metas:
            fields["project-status"]["reason"] = metas["pypi:project-status-reason"][0]
    return Page.of(fields, parser.files)


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
    address = _absolute(href, base)
    filename = "" if address is None else unquote(urlsplit(address).path.rpartition("/")[2])
    if not is_archive(filename) or not is_filename(filename):
        return None
    file: File = {"url": address, "filename": filename, "hashes": _hashes(href.partition("#")[2])}
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
            case "data-core-metadata":
                file["core-metadata"] = _promise(value)
            case "data-dist-info-metadata":  # its older name
                file.setdefault("core-metadata", _promise(value))
            case "data-size":  # in no standard, as the next one; uv reads both
                if value and _SIZE.fullmatch(value):
                    file["size"] = int(value)
            case "data-upload-time":
                if value and _TIME.fullmatch(value):  # pip and uv refuse a JSON page with another
                    file["upload-time"] = value
            case "data-gpg-sig":
                file["gpg-sig"] = value != "false"
            case "data-provenance":
                if provenance := _absolute(value or "", base):
                    file["provenance"] = provenance
            case _:
                file.setdefault(ATTRIBUTES, {})[name] = value
    return file


def _promise(value: str | None) -> bool | dict[str, str]:
    kind, equals, hexadecimal = (value or "").partition("=")
    return {kind: hexadecimal} if equals else value != "false"


def _hashes(fragment: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in fragment.split("&"))
    return {kind: value for kind, _, value in pairs if kind in _HASHES and value}
