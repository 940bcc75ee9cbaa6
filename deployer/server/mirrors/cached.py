"""``POST /+deployer/cached`` and ``/+deployer/keep``: list the files that a mirror has here, and take one of them.

Both carry what one server has of upstreams to another server that reaches none. The proof in a request shows that the
client can read the server directory (:mod:`deployer.server.challenge`). A file is taken as it is taken from an
upstream: all of it is here and verified before one commit stores it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer.protocol import (
    PROOF_HEADER,
    CachedAnswer,
    CachedFile,
    CachedRequest,
    KeepRequest,
)
from deployer.server.challenge import INVALID, Challenge
from deployer.server.devpi.links import digest, place
from deployer.server.mirrors.companions import Companions
from deployer.server.mirrors.files import BLOCK, FileRefused, Found, RemoteFiles
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.page import JSON_TYPE, File, InvalidPage, Page, read
from deployer.server.mirrors.source import OtherFile, Source


class Cached:
    """The views. ``files``: the root of devpi's files."""

    def __init__(
        self,
        indexes: Indexes,
        source: Source,
        remote: RemoteFiles,
        companions: Companions,
        files: Path,
        challenge: Challenge,
    ) -> None:
        self._indexes, self._source, self._remote = indexes, source, remote
        self._companions, self._files, self._challenge = companions, files, challenge

    # Listing

    def list(self, request: Any) -> Any:
        """The view that lists the files of a mirror."""
        try:
            wanted = CachedRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return _message(403, INVALID)
        mirror = self._indexes.mirror(wanted.index)
        if mirror is None:
            return _message(404, f"there is no mirror {wanted.index}")
        return Response(json_body=self.of(mirror))

    def of(self, mirror: Mirror) -> CachedAnswer:
        """The files of a mirror that are here and on a page that is known, sorted by path."""
        answer = CachedAnswer(index=mirror.name, url=mirror.url, pages={}, files=[])
        root = self._files / mirror.name
        for path in sorted(_below(root)):
            found = self._source.here(mirror, path)
            if found is None:
                continue
            project, file, fields = found
            answer["pages"][project] = fields
            stored = root / path
            answer["files"].append(
                CachedFile(
                    project=project,
                    path=path,
                    sha256=_sha256(file, stored),
                    size=stored.stat().st_size,
                    file=file,
                    companions=self._companions.beside(mirror.name, path),
                )
            )
        return answer

    # Taking

    def keep(self, request: Any) -> Any:
        """The view that takes one file."""
        body = request.body_file_raw
        line = body.readline(KeepRequest.LONGEST + 1)
        if not self._challenge.admit(KeepRequest.order(line), request.headers.get(PROOF_HEADER, "")):
            return _message(403, INVALID)
        wanted = KeepRequest.parse(line)
        if wanted is None:
            return _message(400, "an invalid request")
        mirror = self._indexes.mirror(wanted.index)
        if mirror is None:
            return _message(404, f"there is no mirror {wanted.index}")
        try:
            page = _page(mirror, wanted)
            found = Found(mirror, wanted.project, page.files[0], place(page.files[0]))
            beside = {suffix: base64.b64decode(text, validate=True) for suffix, text in wanted.companions.items()}
            self._remote.receive(
                found,
                iter(lambda: body.read(BLOCK), b""),
                sha256=wanted.sha256,
                size=wanted.size,
                verified=lambda: self._verified(found, page, beside),
            )
        except OtherFile as error:
            return _message(409, f"{wanted.index} has another {error}")
        except LookupError:
            return _message(404, f"there is no mirror {wanted.index}")
        except (FileRefused, InvalidPage, ValueError) as error:
            return _message(400, str(error))
        except OSError as error:
            return _message(507, f"the file can't be stored: {error.strerror}")
        return Response(json_body={"index": wanted.index, "path": found.path})

    def _verified(self, found: Found, page: Page, beside: dict[str, bytes]) -> None:
        self._source.add(found.mirror, found.project, page)
        for suffix, content in beside.items():
            self._companions.put(found, suffix, content)


def _page(mirror: Mirror, wanted: KeepRequest) -> Page:
    """The page of the one file that is sent. Raises InvalidPage."""
    page = read(json.dumps(wanted.page).encode(), JSON_TYPE, url=mirror.page(wanted.project), project=wanted.project)
    if len(page.files) != 1:
        raise InvalidPage("it has not exactly one file")
    return page


def _below(root: Path) -> Iterator[str]:
    """The paths of files below the directory of an index, relative to it."""
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), root)  # noqa: PTH118 - of many files


def _sha256(file: File, stored: Path) -> str:
    known = digest(file)
    if known is not None and known[0] == "sha256":
        return known[1]
    with stored.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _message(status: int, text: str) -> Any:
    return Response(json_body={"message": text}, status=status)
