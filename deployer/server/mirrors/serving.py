"""Pages that are made here: of mirrors alone without devpi, and of other indexes from devpi's page, completed.

devpi's page names the files of an index; every other field comes from the pages of upstreams and, for uploads, from
what devpi stored with the file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urljoin

from devpi_common.metadata import splitbasename

from deployer.server.devpi.installed import inside, installed
from deployer.server.devpi.links import place
from deployer.server.devpi.ordered import TYPE, serving
from deployer.server.json_text import loads
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.page import File, Page
from deployer.server.mirrors.render import HELD, Listed, Part, merged
from deployer.server.mirrors.source import RETRY, Answer, Source
from deployer.server.mirrors.store import Head
from deployer.server.mirrors.uploads import Uploads
from deployer.server.upstream.client import NoAnswer

_ADDRESS = re.compile(r"(.*/)([^/]+/[^/]+)/(\+[ef]/[^#?]*)")


@dataclass(frozen=True)
class Served:
    """A page that mirrors alone serve.

    ``part``: None when no mirror has the project. ``first``: the serial that the decision is based on. ``until``: until
    when it holds (seconds since the epoch). ``silent``: a mirror whose upstream did not answer, empty without one.
    ``serial``: the upstream's serial, where one mirror serves, empty without. ``answers``: what it was made of.
    ``former``: devpi may know links of the silent mirror, from before pages were kept here.
    """

    part: Part | None
    first: int
    until: float
    silent: str
    serial: str = ""
    answers: tuple[tuple[Mirror, Answer], ...] = ()
    former: bool = False


@dataclass(frozen=True)
class _Reach:
    """What an index reads as of serial ``first``. ``uploaded``: what its indexes with uploads have; its ``mirrors``
    serve all other projects."""

    first: int
    mirrors: tuple[str, ...]
    uploaded: frozenset[str]


class Serving:
    """Makes pages."""

    def __init__(
        self, xom: Any, indexes: Indexes, source: Source, uploads: Uploads, last_change: Callable[[str], int]
    ) -> None:
        """``last_change``: the serial of the last commit, of all that are known, that touched a project's pages."""
        self._xom, self._indexes, self._source, self._uploads = xom, indexes, source, uploads
        self._last_change = last_change
        self._reaches: dict[str, _Reach] = {}
        # A plugin may leave out bases by rules of its own.
        self._has_rules = bool(xom.config.hook.devpiserver_sro_skip.get_hookimpls())

    def of_mirrors(self, index: str, project: str) -> Served | None:
        """The page of ``project`` on ``index``; None when an index with uploads has the project, or one of a type that
        is not known here: then devpi makes the page."""
        first, names = self._decided(index, project)
        if names is None:
            return None
        mirrors = [self._indexes.mirror(name) for name in names]
        if any(mirror is None for mirror in mirrors):  # made a moment ago
            return None
        return self._of(first, [mirror for mirror in mirrors if mirror is not None], project)

    def _decided(self, index: str, project: str) -> tuple[int, Sequence[str] | None]:
        """The mirrors that serve a project, None as of :meth:`of_mirrors`; and the serial that this is based on.

        A decision holds as long as a stored page: until a commit is known that touched the project, or any index.
        """
        reach = self._reaches.get(index)
        if reach is not None and self._last_change(project) <= reach.first:
            return reach.first, None if project in reach.uploaded else reach.mirrors
        with self._xom.keyfs.read_transaction() as transaction:
            first = int(transaction.at_serial)
            stage = self._xom.model.getstage(index)
            names = None if stage is None else self._serving(stage, project)
            reach = None if stage is None else self._reach(first, list(stage.sro()))
        if reach is not None:
            self._reaches[index] = reach
        else:
            self._reaches.pop(index, None)
        return first, names

    def held(self, index: str, project: str) -> list[Any]:
        """What the rules of the mirrors hold back that serve a project, as a page says it."""
        names = self._decided(index, project)[1] or ()
        mirrors = [mirror for mirror in map(self._indexes.mirror, names) if mirror is not None and mirror.rules.any]
        pages = (answer.read() for mirror in mirrors if (answer := self._source.shown(mirror, project)))
        return [one for page in pages if page is not None for one in page.fields.get(HELD) or ()]

    def may_be_ordered(self, index: str) -> bool:
        """Whether more than configuration and uploads may decide who serves an index."""
        return self._reaches.get(index) is None

    def _reach(self, first: int, stages: Sequence[Any]) -> _Reach | None:
        """None where more than configuration and uploads decides who serves, as in an ordered index."""
        if self._has_rules or not {stage.ixconfig["type"] for stage in stages} <= {
            installed().mirror,
            installed().stage,
        }:
            return None
        uploaded = inside().uploaded([stage for stage in stages if not inside().is_mirror(stage)])
        mirrors = tuple(stage.name for stage in stages if inside().is_mirror(stage))
        return None if uploaded is None else _Reach(first, mirrors, uploaded)

    @staticmethod
    def _serving(stage: Any, project: str) -> list[str] | None:
        kinds = {one.ixconfig["type"] for one in stage.sro()}
        if not kinds <= {installed().mirror, installed().stage, TYPE}:
            return None
        stages = inside().serving(stage, project, serving)
        mirrors = [one.name for one in stages if inside().is_mirror(one)]
        uploads = [one for one in stages if not inside().is_mirror(one)]
        return None if any(one.has_project_perstage(project) for one in uploads) else mirrors

    def _of(self, first: int, mirrors: Sequence[Mirror], project: str) -> Served:
        parts: list[Part] = []
        answers: list[tuple[Mirror, Answer]] = []
        silent, until, serial, former = "", float("inf"), "", False
        for mirror in mirrors:
            try:
                answer = self._source.get(mirror, project)
            except NoAnswer:
                former |= self._source.has_former_links(mirror)
                silent, until = mirror.name, min(until, time.time() + RETRY)
                continue
            until = min(until, answer.until)
            answers.append((mirror, answer))
            part = self._part(mirror, answer)
            if part is not None and answer.kept is not None:
                parts.append(part)
                serial = answer.kept.head.serial
        if not parts:
            return Served(None, first, until, silent, former=former)
        serial = serial if len(mirrors) == 1 else ""
        return Served(merged(parts, name=project), first, until, silent, serial, tuple(answers), former)

    def are_last(self, served: Served, project: str) -> bool:
        """Whether ``served`` is made of what the upstreams answered last."""
        return all(self._source.is_last(mirror, project, answer) for mirror, answer in served.answers)

    @staticmethod
    def _part(mirror: Mirror, answer: Answer) -> Part | None:
        page = answer.read()
        if page is None or answer.kept is None:
            return None
        return Part(page.fields, _all_listed(mirror, page, answer.kept.head))

    # devpi's pages

    def completed(self, body: bytes, project: str, *, page: str) -> tuple[Part, str]:
        """devpi's JSON page with all fields, and what absolute addresses in it begin with. ``page``: its own path."""
        data = loads(body)
        found = [_address(file, page) for file in data["files"]]
        up = found[0][0] if found else ""
        uploads = [path for _, index, path, _ in found if self._indexes.mirror(index) is None]
        facts = self._uploads.facts(uploads)
        heads: dict[str, tuple[Head, dict[str, File]] | None] = {}
        listed = [self._completed(project, file, index, path, facts, heads) for _, index, path, file in found]
        indexes = dict.fromkeys(index for _, index, _, _ in found)
        parts = [Part(self._fields(index, project, listed, heads), ()) for index in indexes]
        fields = merged(parts, name=project).fields if parts else {"meta": {"api-version": "1.0"}, "name": project}
        return Part(fields, listed), up

    def _completed(
        self,
        project: str,
        file: File,
        index: str,
        path: str,
        facts: dict[str, tuple[int | None, str | None]],
        heads: dict[str, tuple[Head, dict[str, File]] | None],
    ) -> Listed:
        mirror = self._indexes.mirror(index)
        if mirror is None:
            size, modified = facts.get(path, (None, None))
            more: File = {} if size is None else {"size": size}
            more |= {"upload-time": _time(modified)} if modified else {}
            return Listed({**file, **more}, path, path.endswith(".whl") and not self._uploads.has_metadata(path))
        if index not in heads:
            heads[index] = self._shown(mirror, project)
        known = heads[index]
        below = path.removeprefix(f"{index}/")
        if known is None or below not in known[1]:
            return Listed(file, path)
        return _listed(mirror, known[1][below], known[0].lacking)

    def _shown(self, mirror: Mirror, project: str) -> tuple[Head, dict[str, File]] | None:
        answer = self._source.shown(mirror, project)
        page = None if answer is None else answer.read()
        if answer is None or answer.kept is None or page is None:
            return None
        return replace(answer.kept.head, fields=page.fields), {place(one): one for one in page.each()}

    def _fields(
        self,
        index: str,
        project: str,
        listed: Iterable[Listed],
        heads: dict[str, tuple[Head, dict[str, File]] | None],
    ) -> dict[str, Any]:
        known = heads.get(index)
        if known is not None:
            return known[0].fields
        own = [one.file for one in listed if one.path.startswith(f"{index}/")]
        is_upload = self._indexes.mirror(index) is None and all("size" in file for file in own)
        fields: dict[str, Any] = {"meta": {"api-version": "1.1" if is_upload else "1.0"}, "name": project}
        if is_upload:
            fields["versions"] = list(dict.fromkeys(filter(None, (_version(file["filename"]) for file in own))))
        return fields


def _all_listed(mirror: Mirror, page: Page, head: Head) -> Iterator[Listed]:
    lacking = frozenset(head.lacking)
    return (_listed(mirror, file, lacking) for file in page.each())


def _listed(mirror: Mirror, file: File, lacking: Collection[str]) -> Listed:
    path = place(file)
    return Listed(file, f"{mirror.name}/{path}", path in lacking)


def _address(file: File, page: str) -> tuple[str, str, str, File]:
    """What a file's address begins with, its index, and its path on this server; and the file object."""
    found = _ADDRESS.fullmatch(urljoin(f"http://localhost{page}", file["url"]))
    if found is None:
        raise ValueError(f"devpi's page has the address {file['url']!r}")
    above, index, below = found.groups()
    return above, index, f"{index}/{unquote(below)}", file


def _version(filename: str) -> str | None:
    try:
        return str(splitbasename(filename)[1])  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def _time(modified: str) -> str:
    """devpi's time of an upload as PEP 700 wants it: ISO 8601, UTC."""
    if modified[:4].isdecimal():
        return modified.replace("+0000", "Z").replace("+00:00", "Z")
    return parsedate_to_datetime(modified).strftime("%Y-%m-%dT%H:%M:%SZ")
