"""The core metadata of a release as a page shows it. Pure; nothing of it is trusted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST = 200
"""Entries of one list that are shown."""
_LINK = re.compile(r"https?://[^\s<>\"']{1,500}", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link of a project. ``address``: http or https."""

    label: str
    address: str


@dataclass(frozen=True)
class Dependency:
    """A requirement. ``project``: its normalised name, empty for one that is no requirement."""

    text: str
    project: str = ""
    extra: str = ""


@dataclass(frozen=True)
class Metadata:
    """What METADATA says; empty where it does not."""

    summary: str = ""
    author: str = ""
    license: str = ""
    requires_python: str = ""
    keywords: str = ""
    links: Sequence[Link] = ()
    requires: Sequence[Dependency] = ()
    description: str = ""
    content_type: str = ""


def parse(content: bytes) -> Metadata:
    """Read METADATA or PKG-INFO. Of a damaged file what can be read."""
    from packaging.metadata import parse_email

    try:
        raw, _ = parse_email(content)
    except (ValueError, LookupError, RecursionError):
        return Metadata()
    given: dict[str, Any] = dict(raw)
    return Metadata(
        summary=_line(given.get("summary")),
        author=_line(given.get("author")) or _line(given.get("author_email")),
        license=_line(given.get("license_expression")) or _line(given.get("license")),
        requires_python=_line(given.get("requires_python")),
        keywords=", ".join(map(_line, _list(given.get("keywords"))))[:300],
        links=_links(given),
        requires=[_dependency(text) for text in _list(given.get("requires_dist"))],
        description=_text(given.get("description")),
        content_type=_text(given.get("description_content_type")),
    )


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _line(found: object) -> str:
    """The first line of a text, at most 300 characters."""
    text = _text(found).strip()
    return text.splitlines()[0][:300] if text else ""


def _list(found: object) -> list[str]:
    return [one for one in found if isinstance(one, str)][:MOST] if isinstance(found, list) else []


def _links(given: dict[str, Any]) -> list[Link]:
    urls = given.get("project_urls")
    pairs = [(str(label), str(address)) for label, address in urls.items()] if isinstance(urls, dict) else []
    if home := _text(given.get("home_page")):
        pairs.insert(0, ("Homepage", home))
    known: dict[str, Link] = {}
    for label, address in pairs[:MOST]:
        if _LINK.fullmatch(address.strip()):
            known.setdefault(address.strip(), Link(_line(label) or "Link", address.strip()))
    return list(known.values())


def _dependency(text: str) -> Dependency:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    text = text[:500]
    try:
        found = Requirement(text)
    except (InvalidRequirement, RecursionError):
        return Dependency(text)
    extra = re.search(r"""\bextra\s*==\s*["']([^"']+)["']""", str(found.marker)) if found.marker else None
    return Dependency(text, str(canonicalize_name(found.name)), extra[1] if extra else "")
