"""``GET /+deployer/rules``: what the rules of the mirrors below an index hold back.

Anybody may ask, as anybody may read the pages. Only pages and files that are here are looked at, no upstream is asked.
One answer looks at few projects, and ends in time; ``after`` says where the next one begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devpi_server.normalized import normalize_name
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound

from deployer.protocol import Report, RuledFile, RulesAnswer, TakenOver
from deployer.server.devpi.links import place
from deployer.server.guard.first_seen import differs
from deployer.server.guard.rules import Held, iso, moment, version_of
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.store import Kept
from deployer.server.mirrors.takeovers import Takeovers

MOST = 500
"""Files in one answer; the last project of it may have more."""
_LAST = "\U0010ffff"
"""Sorts after the name of every index."""
SECONDS = 5.0
"""Seconds after which an answer ends."""


class RulesReport:
    """The view. ``files``: the root of devpi's files."""

    def __init__(self, indexes: Indexes, source: Source, takeovers: Takeovers, files: Path) -> None:
        self._indexes, self._source, self._takeovers, self._files = indexes, source, takeovers, files

    def __call__(self, request: Any) -> RulesAnswer:
        """The view of ``GET``. Parameters: ``index``, ``list`` (one of ``Report``), ``name``, ``after``."""
        index, name = request.params.get("index", ""), request.params.get("name", "")
        wanted = request.params.get("list", Report.HELD)
        if wanted not in set(Report) or (wanted == Report.FILES and not name):
            raise HTTPBadRequest(f"list={'|'.join(Report)} is needed, and a name for files")
        mirrors = self._indexes.known(index)
        if mirrors is None:
            raise HTTPNotFound(f"there is no index {index}")
        after = request.params.get("after", "")
        deadline = time.monotonic() + SECONDS
        project = str(normalize_name(name)) if name else ""
        found: list[RuledFile] = []
        taken: list[TakenOver] = []
        for place_of, mirror, what in self._steps(index, mirrors, Report(wanted), project):
            if place_of <= after:
                continue
            if len(found) + len(taken) >= MOST or time.monotonic() > deadline:
                return {"index": index, "files": found, "after": after, "taken": taken}
            if isinstance(mirror, Mirror):
                found += self._of(mirror, Report(wanted), what)
            elif (one := self._takeovers.of(mirror, what)) is not None:
                taken.append(one)
            after = place_of
        return {"index": index, "files": found, "after": "", "taken": taken}

    def _steps(
        self, index: str, mirrors: tuple[Mirror, ...], wanted: Report, name: str
    ) -> Iterator[tuple[str, Mirror | str, str]]:
        """What is looked at, in an order that stays: a project of a mirror, or a directory of its stored files; then a
        project of an ordered index, of which the name stands for it."""
        for mirror in sorted(mirrors, key=lambda one: one.name):
            if wanted == Report.POLICY:
                names = self._directories(mirror) if mirror.rules.any else []
            else:
                names = [name] if name else self._source.names(mirror.name)
            for one in names:
                yield f"{mirror.name}/{one}", mirror, one
        if wanted in (Report.CHANGES, Report.FILES):
            for ordered in self._takeovers.ordered(index):
                for one in [name] if name else self._takeovers.projects(ordered):
                    yield f"{_LAST}{ordered}/{one}", ordered, one

    def _directories(self, mirror: Mirror) -> list[str]:
        root = self._files / mirror.name
        return [f"+{kind}/{name}" for kind in "ef" for name in _names(root / f"+{kind}")]

    def _of(self, mirror: Mirror, wanted: Report, what: str) -> Iterator[RuledFile]:
        if wanted == Report.POLICY:
            yield from self._stored(mirror, what)
            return
        kept = self._source.known(mirror, what)
        if kept is None:
            return
        match wanted:
            case Report.CHANGES:
                yield from self._changed(mirror, what, kept)
            case Report.HELD:
                yield from (one for one in self._listed(mirror, what, kept) if one["rule"])
            case _:
                yield from self._listed(mirror, what, kept)

    def _listed(self, mirror: Mirror, project: str, kept: Kept) -> Iterator[RuledFile]:
        verdicts = mirror.rules.about(project, time.time())
        for file in kept.page().each():
            held = verdicts.on(file, kept.head.first.get(file["filename"])) if mirror.rules.any else None
            yield self._file(mirror, project, file["filename"], place(file), held)

    def _changed(self, mirror: Mirror, project: str, kept: Kept) -> Iterator[RuledFile]:
        for name, first in sorted(kept.head.first.items()):
            for file in kept.named(name):
                if differs(first, file):
                    then = moment(first.get("upload-time"))
                    since = "" if then is None else f", uploaded {iso(then)}"
                    reason = f"{_hash(file)} on the page, {_hash(first)} at first{since}"
                    refused = mirror.rules.any and mirror.rules.changed
                    held = Held("changed" if refused else "", reason)
                    yield self._file(mirror, project, name, place(first), held)

    def _stored(self, mirror: Mirror, directory: str) -> Iterator[RuledFile]:
        root = self._files / mirror.name
        for above, _, names in sorted(os.walk(root / directory)):
            for name in sorted(names):
                path = (Path(above) / name).relative_to(root).as_posix()
                found = self._source.decide(mirror, path, ask=False)
                if found.held is not None:
                    yield self._file(mirror, found.project, name, path, found.held)

    def _file(self, mirror: Mirror, project: str, filename: str, path: str, held: Held | None) -> RuledFile:
        return {
            "mirror": mirror.name,
            "project": project,
            "filename": filename,
            "version": version_of(filename, project) or "",
            "rule": "" if held is None else held.rule,
            "until": None if held is None else held.date,
            "reason": "" if held is None else held.reason,
            "cached": (self._files / mirror.name / path).exists(),
        }


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:
        return []


def _hash(file: Any) -> str:
    kind = "sha256" if "sha256" in file["hashes"] else next(iter(file["hashes"]), "")
    return f"{kind} {file['hashes'].get(kind, '')[:16]}"
