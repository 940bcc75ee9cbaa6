"""What a server has of its mirrors: names, upstreams, cached files, and a file that is brought."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypedDict

from deployer.protocol.values import is_host, is_index_name, is_project_name, is_sha256, number_of, parsed, text_of


@dataclass(frozen=True, kw_only=True)
class CachedRequest:
    """``POST /+deployer/cached``: a mirror whose cached files are listed, and the client's proof."""

    index: str
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"cached {self.index}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> CachedRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, proof = text_of(body.get("index")), text_of(body.get("proof"))
        if index is None or not is_index_name(index) or proof is None or not proof.isascii():
            return None
        return cls(index=index, proof=proof)


class CachedFile(TypedDict):
    """A file of a mirror that is stored. ``path``: below the index. ``file``: the file object of its page (PEP 691).
    ``companions``: the SHA-256 of what is stored beside it, by its suffix, such as ``.metadata``."""

    project: str
    path: str
    sha256: str
    size: int
    file: dict[str, Any]
    companions: dict[str, str]


class CachedAnswer(TypedDict):
    """``POST /+deployer/cached``. ``url``: of the upstream. ``pages``: the fields of each project's page."""

    index: str
    url: str
    pages: dict[str, dict[str, Any]]
    files: list[CachedFile]


COMPANIONS = (".metadata", ".provenance", ".asc")
"""Suffixes of what may stand beside a file (PEP 658, PEP 740, PEP 503)."""


@dataclass(frozen=True, kw_only=True)
class KeepRequest:
    """First line of the body of ``POST /+deployer/keep``, a JSON object; the file's bytes follow it.

    ``page``: the project's page (PEP 691) with this file alone. ``companions``: Base64 by suffix.
    """

    LONGEST: ClassVar[int] = 16 << 20
    """Bytes of the line."""

    index: str
    project: str
    page: dict[str, Any]
    sha256: str
    size: int
    companions: dict[str, str]

    @staticmethod
    def order(line: bytes) -> str:
        """What the proof of a request with this first line is for."""
        from hashlib import sha256

        return f"keep {sha256(line).hexdigest()}"

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> KeepRequest | None:
        """Read a line that is not trusted; None when it is invalid."""
        try:
            told = parsed(line)
            wanted = cls(**told)
        except (ValueError, TypeError):
            return None
        names = isinstance(wanted.index, str) and isinstance(wanted.project, str) and isinstance(wanted.sha256, str)
        if not names or not is_index_name(wanted.index) or not is_project_name(wanted.project):
            return None
        beside = wanted.companions.items() if isinstance(wanted.companions, dict) else ()
        known = all(suffix in COMPANIONS and isinstance(text, str) for suffix, text in beside)
        if not known or not isinstance(wanted.companions, dict) or not isinstance(wanted.page, dict):
            return None
        return wanted if is_sha256(wanted.sha256) and (number_of(wanted.size) or -1) > 0 else None


class ProjectNames(TypedDict):
    """A project, the indexes that have it, the index that owns its name, and the indexes that serve it."""

    name: str
    known_in: list[str]
    owner: str | None
    served_by: list[str]


class NamesAnswer(TypedDict):
    """``GET /+deployer/names``. ``left_out``: projects beyond the limit of one answer."""

    index: str
    projects: list[ProjectNames]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """A mirror: ``url`` of its upstream, without credentials, and the hosts of the files on the pages that are known,
    each with its port unless that is the one of https."""

    name: str
    url: str
    hosts: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, answer: object) -> tuple[Mirrored, ...] | None:
        """Read ``mirrors`` of ``GET /+deployer/mirrored?index=USER/NAME``: those that the index reads, in order, itself
        included. The answer is not trusted; None when it is invalid."""
        found = answer.get("mirrors") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            return None
        mirrors = []
        for one in found:
            told = one if isinstance(one, dict) else {}
            name, url, hosts = text_of(told.get("name")), text_of(told.get("url")), told.get("hosts")
            if name is None or url is None or not is_index_name(name) or not isinstance(hosts, list):
                return None
            mirrors.append(cls(name=name, url=url, hosts=tuple(filter(is_host, hosts))))
        return tuple(mirrors)
