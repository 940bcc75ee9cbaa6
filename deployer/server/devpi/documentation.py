"""Documentation of releases: read from the uploaded archive, within bounds, and sent without scripts.

devpi-web extracts an archive into the server directory, as far up as a member's name leads, and sends clients any file
that their path leads to from there. With ``--keep-docs-packed``, which ``serve`` sets, it extracts nothing and looks
members up by their name. It would still read each one as a whole, and all pages at once for the search index.
"""

from __future__ import annotations

import base64
import hashlib
import html
import mimetypes
import re
import threading
from collections.abc import Iterator
from importlib.resources import files
from typing import IO, Any
from zipfile import BadZipFile, ZipInfo

from deployer.protocol import parsed
from deployer.server.devpi.archives import BROKEN, MIB, Documentation

INDEXED_PAGE, INDEXED_PAGES, INDEXED = MIB // 4, 1_000, 8 * MIB
"""What the search index gets: pages up to this size, this many of them, and bytes of them together."""
SANDBOX = (
    "sandbox allow-same-origin allow-popups allow-top-navigation-by-user-activation; default-src 'none'; "
    "img-src 'self' data:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content-Security-Policy of documentation: no scripts, no forms, nothing from elsewhere."""
AT_ONCE = 4
"""Archives that are open for requests at a time: the list of members of a large one takes some megabytes."""
REMEMBERED = 10_000
"""Archives of which it is remembered whether they have a first page; the page of a project looks at each version's."""
_SKIPPED = ("script", "style")
_few = threading.BoundedSemaphore(AT_ONCE)
_first_pages: dict[str, bool] = {}


class _Nothing:
    """Takes the place of an archive that is refused: it was stored before, or came from another server."""

    FileNotExist = KeyError

    def getfile(self, name: str) -> IO[bytes]:
        raise self.FileNotExist(name)

    def namelist(self) -> list[str]:
        return []

    def infolist(self) -> list[ZipInfo]:
        return []

    def forget(self) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def opened(file: IO[bytes]) -> Any:
    """Replaces devpi-common's ``Archive`` in devpi-web: an archive within bounds, or one without members."""
    from devpi_server.log import threadlog

    try:
        return Documentation(file)
    except BROKEN as error:
        threadlog.warn("documentation is refused: %s", error)
        return _Nothing()


def exists(_stage: Any, _name: str, _version: str, entry: Any, relpath: str) -> bool:
    """Replaces ``docs_file_exists``: whether the archive of ``entry`` has the member ``relpath``."""
    if not entry.file_exists():
        return False
    key = entry.best_available_hash_spec if relpath == "index.html" else ""
    if key in _first_pages:
        return _first_pages[key]
    with _few, entry.file_open_read() as file, opened(file) as archive:
        found = not relpath.endswith("/") and relpath in archive.namelist()
    if key:
        if len(_first_pages) >= REMEMBERED:
            _first_pages.clear()
        _first_pages[key] = found
    return found


# The search index


def entries(docs: Any) -> dict[str, bytes]:
    """Replaces ``Docs._packed_entries``: pages by their name, and as many as the index takes."""
    found: dict[str, bytes] = {}
    with docs.entry.file_open_read() as file, opened(file) as archive:
        names = archive.namelist()
        suffix = ".fjson" if any(name.endswith(".fjson") for name in names) else ".html"
        left = INDEXED
        for name in [name for name in names if name.endswith(suffix)][:INDEXED_PAGES]:
            size = archive.getinfo(name).file_size
            if size > min(INDEXED_PAGE, left):
                continue
            try:
                found[name.removesuffix(suffix)] = archive.read(name)
            except (BadZipFile, OSError):
                continue
            left -= size
    return found


def page(docs: Any, name: str) -> dict[str, str]:
    """Replaces ``Docs.__getitem__``: title and text of a page; devpi-web would build a tree of its elements."""
    content = docs._entries.get(name, b"").decode("utf-8", "replace")
    path = name
    if content.startswith("{"):  # Sphinx's fjson
        try:
            info = parsed(content)
            path = str(info.get("current_page_name", name))
            content = f"<title>{info.get('title', '')}</title>{info.get('body', '')}"
        except (ValueError, AttributeError):
            content = ""
    title, text = words(content)
    return {"title": title, "text": text, "path": path}


def words(markup: str) -> tuple[str, str]:
    """Title and text of an HTML page, in time that grows with its length only, and without a tree."""
    title: list[str] = []
    text: list[str] = []
    first, *rest = markup.split("<")
    text.append(first)
    inside = ""
    for part in rest:
        tag, _, after = part.partition(">")
        name = tag.split(maxsplit=1)[0].lower() if tag.strip() else ""
        if inside in _SKIPPED and name != f"/{inside}":
            continue
        inside = name
        if name not in _SKIPPED:
            (title if name == "title" else text).append(after)
    return html.unescape(" ".join(title)).strip(), html.unescape(" ".join(text)).strip()


# The view


class _Body:
    """The pieces of a member; its files are closed with it."""

    def __init__(self, archive: Documentation, member: ZipInfo, file: IO[bytes]) -> None:
        self._archive, self._file = archive, file
        self._pieces = archive.pieces(member)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._archive.close()
        self._file.close()


def serve(context: Any, request: Any) -> Any:
    """Replaces devpi-web's view of a file of documentation: it is sent in pieces, and runs no scripts."""
    from devpi_web import views
    from pyramid.httpexceptions import HTTPNotFound, HTTPNotModified
    from pyramid.response import Response

    wrapped = views.ContextWrapper(context)
    known = views.get_doc_info(wrapped, request)  # raises HTTPNotFound, HTTPFound
    if known["etag"] in request.if_none_match.etags if request.if_none_match else False:
        return HTTPNotModified(etag=known["etag"])
    (link,) = wrapped.stage.get_linkstore_perstage(wrapped.project, known["doc_version"]).get_links(rel="doczip")[:1]
    file = link.entry.file_open_read()
    with _few:
        archive = opened(file)
        members = {member.filename: member for member in archive.infolist()}
        archive.forget()  # a client may take its time
    member = members.get(known["relpath"])
    if member is None or member.is_dir():
        file.close()
        raise HTTPNotFound
    kind, encoding = mimetypes.guess_type(known["relpath"], strict=False)
    response = Response(
        app_iter=_Body(archive, member, file),
        content_type=kind or "application/octet-stream",
        content_encoding=encoding,
    )
    response.content_length = member.file_size
    response.etag = known["etag"]
    response.cache_expires(60)
    response.headers["Content-Security-Policy"] = SANDBOX
    return response


def configure(pyramid_config: Any) -> None:
    """Register the view of documentation in the place of devpi-web's, which comes by an include and so yields."""
    pyramid_config.add_view(serve, route_name="docroot", request_method="GET")


def scripts() -> tuple[str, ...]:
    """The hashes of the scripts that are written into devpi-web's page around documentation (CSP level 2)."""
    template = files("devpi_web").joinpath("templates/doc.pt").read_text(encoding="utf-8")
    found = re.findall(r'<script type="text/javascript">(.*?)</script>', template, re.DOTALL)
    return tuple(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found)


def install() -> None:
    """Replace what devpi-web reads documentation with. Imports devpi-web."""
    from devpi_web import doczip, views

    doczip.Archive = opened
    doczip.Docs._packed_entries = entries
    doczip.Docs.__getitem__ = page
    doczip.docs_file_exists = views.docs_file_exists = exists
    views.docs_file_content = nothing


def nothing(*_: object) -> None:
    """Replaces ``docs_file_content``: :func:`serve` sends the content, in pieces."""
