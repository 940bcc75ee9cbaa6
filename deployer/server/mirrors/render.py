"""The page of a project as clients get it: JSON (PEP 691, 700, 708, 714, 740, 792) or HTML (PEP 503, 592, 658).

A page has parts, one for each index that serves the project. Every field of a part reaches the client; addresses are
replaced by ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from deployer.server.json_text import dumps
from deployer.server.mirrors.page import ATTRIBUTES, File, size_of

METADATA, PROVENANCE, SIGNATURE = ".metadata", ".provenance", ".asc"
"""What is appended to a file's address for its metadata (PEP 658), provenance (PEP 740) and signature (PEP 503)."""
HELD = "_held"
"""The field that says which files are held back (PEP 691: names that begin with ``_`` are an index's own)."""
PROMISES = ("core-metadata", "dist-info-metadata")
"""The keys that promise metadata. Only the first is added to a file: pip 22.3 to 23.1 fails on the other in JSON, which
is why PEP 714 renamed it. In HTML both have worked with every pip."""
_SAFE = "/+!@,=~'()$&*;:"
_PLAIN = re.compile(r"[A-Za-z0-9._/+!~-]+")
"""A path that is the same in a URL and in JSON."""
_LISTS = ("alternate-locations",)


class Listed(NamedTuple):
    """A file of a page.

    ``path``: on this server, ``user/index/+f/…``; empty for the upstream's own addresses. ``lacks``: it is a wheel
    without metadata.
    """

    file: File
    path: str
    lacks: bool = False


@dataclass(frozen=True)
class Part:
    """What one index adds to a page. ``fields``: the top level of PEP 691 without ``files``. ``files``: may be read
    once only."""

    fields: dict[str, Any]
    files: Iterable[Listed]


def merged(parts: Sequence[Part], *, name: str) -> Part:
    """One page of several indexes: of files with the same name those of the first index count (devpi's rule)."""
    if len(parts) == 1:
        return parts[0]
    files: list[Listed] = []
    taken: set[str] = set()
    for part in parts:
        added = [listed for listed in part.files if listed.file["filename"] not in taken]
        taken |= {listed.file["filename"] for listed in added}
        files += added
    fields: dict[str, Any] = {}
    for part in reversed(parts):
        fields |= part.fields
    fields["meta"] = {
        key: value for part in reversed(parts) for key, value in part.fields["meta"].items() if key[:1] != "_"
    } | {"api-version": min((part.fields["meta"]["api-version"] for part in parts), key=_version)}
    fields["name"] = name
    if all("versions" in part.fields for part in parts):
        fields["versions"] = _united(parts, "versions")
    else:  # an index of API 1.0 names none
        fields.pop("versions", None)
    if HELD in fields:
        found = (part.fields.get(HELD) for part in parts)
        fields[HELD] = [one for held in found if isinstance(held, list) for one in held]
    for key in _LISTS:
        if key in fields:
            fields[key] = _united(parts, key)
    return Part(fields, files)


def _united(parts: Sequence[Part], key: str) -> list[str]:
    return list(dict.fromkeys(entry for part in parts for entry in _strings(part.fields.get(key))))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) if number.isdecimal() else 0 for number in text.split("."))


def for_client(listed: Listed, up: str) -> File:
    """The file object that a client gets. ``up``: the way from the page to the server's root, such as ``../../``."""
    file, path, lacks = listed
    made = promised(file, lacks=lacks) if path else {**file}
    made.pop(ATTRIBUTES, None)
    if path:
        made["url"] = up + _quoted(path)
        if made.get("provenance"):
            made["provenance"] = made["url"] + PROVENANCE
    return made


def promised(file: File, *, lacks: bool) -> File:
    """A copy of ``file``, a wheel with metadata unless it ``lacks`` them: what its upstream does not send is taken from
    it."""
    made = {**file}
    if not file["filename"].endswith(".whl"):
        return made
    if lacks:
        for key in PROMISES:
            made.pop(key, None)
    else:
        core, older = PROMISES
        made[core] = given = file.get(core) or file.get(older) or True
        if older in made:
            made[older] = given
    return made


def to_json(part: Part, up: str) -> bytes:
    """The page as JSON."""
    files = b",".join([dumps(for_client(listed, up)) for listed in part.files])
    return b"".join((dumps(part.fields)[:-1], b',"files":[', files, b"]}"))


def _quoted(path: str) -> str:
    return path if _PLAIN.fullmatch(path) else quote(path, safe=_SAFE)


def to_html(part: Part, up: str, *, title: str) -> bytes:
    """The page as HTML. Half a surrogate pair, which JSON may have, is replaced by a question mark."""
    return "".join(_html(part, up, title)).encode(errors="replace")


def _html(part: Part, up: str, title: str) -> Iterator[str]:
    yield f'<!DOCTYPE html>\n<html lang="en"><head><title>{escape(title)}</title>\n'
    for name, content in _metas(part.fields):
        yield f'<meta name="{name}" content="{escape(content)}">\n'
    yield f"</head><body><h1>{escape(title)}</h1>\n"
    for listed in part.files:
        attributes = "".join(_attribute(name, value) for name, value in _attributes(listed, up))
        yield f"<a{attributes}>{escape(listed.file['filename'])}</a><br>\n"
    yield from _comments(part.fields.get(HELD))
    yield "</body></html>"


def _comments(held: object) -> Iterator[str]:
    """What is held back, for whoever reads the source of a page."""
    return (f"<!-- {text.replace('--', '- -')} -->\n" for text in held_lines(held))


def held_lines(held: object) -> Iterator[str]:
    """Each file that is held back as a line of HTML. ``held``: the field of a page that says so."""
    for one in held if isinstance(held, list) else ():
        if isinstance(one, dict):
            until = f" until {one['until']}" if one.get("until") else ""
            text = f"{one.get('filename')} is held back{until} by {one.get('rule')} of {one.get('index')}"
            yield escape(f"{text}: {one.get('reason')}")


def _metas(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    meta = fields["meta"]
    yield "pypi:repository-version", meta["api-version"]
    for track in _strings(meta.get("tracks")):
        yield "pypi:tracks", track
    for location in _strings(fields.get("alternate-locations")):
        yield "pypi:alternate-locations", location
    status = fields.get("project-status")
    if isinstance(status, dict):
        for key, name in (("status", "pypi:project-status"), ("reason", "pypi:project-status-reason")):
            yield from ((name, text) for text in _strings([status.get(key)]) if text)


def _strings(found: object) -> Iterable[str]:
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else ()


def _attribute(name: str, value: str | None) -> str:
    return f" {name}" if value is None else f' {name}="{escape(value)}"'


def _attributes(listed: Listed, up: str) -> Iterator[tuple[str, str | None]]:
    file = for_client(listed, up)
    yield "href", file["url"] + _fragment(file["hashes"])
    if _is_text(file.get("requires-python")):
        yield "data-requires-python", file["requires-python"]
    if promise := next(filter(None, map(file.get, PROMISES)), None):
        yield from ((f"data-{key}", _promise(promise)) for key in PROMISES)
    if file.get("yanked"):
        yield "data-yanked", file["yanked"] if _is_text(file["yanked"]) else ""
    elif file.get("yanked") == "":  # as page.py reads it
        yield "data-yanked", None
    if size_of(file) is not None:
        yield "data-size", str(file["size"])
    if _is_text(file.get("upload-time")):
        yield "data-upload-time", file["upload-time"]
    if "gpg-sig" in file:
        yield "data-gpg-sig", "true" if file["gpg-sig"] else "false"
    if _is_text(file.get("provenance")):
        yield "data-provenance", file["provenance"]
    yield from (listed.file.get(ATTRIBUTES) or {}).items()


def _is_text(found: object) -> bool:
    return isinstance(found, str) and found != ""


def _fragment(hashes: dict[str, str]) -> str:
    kind = "sha256" if "sha256" in hashes else next(iter(hashes), "")
    return f"#{kind}={hashes[kind]}" if kind else ""


def _promise(given: Any) -> str:
    hashes = {kind: value for kind, value in given.items() if isinstance(value, str)} if isinstance(given, dict) else {}
    return _fragment(hashes)[1:] or "true"
