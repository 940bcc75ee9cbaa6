"""Have the server fetch what requirements and lock files need, for each Python and platform, before it is asked for.

What is here already is not asked for again, so an interrupted run is continued by the next one: the server has a file
whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from deployer.clients.resolvers import Resolver
from deployer.errors import DeployerError, VerificationError
from deployer.operations.warm.fetch import fetch_all
from deployer.operations.warm.index import Index, NotFetched
from deployer.operations.warm.sdists import build_requirements
from deployer.operations.warm.threads import Each, threads
from deployer.selection import Wanted, is_lock, read
from deployer.selection.pages import Listed, ProjectPage, names
from deployer.selection.targets import Target

JOBS = 16
"""Files at a time; nginx and upstreams take it, and more is not faster."""
ROUNDS = 5
"""Build dependencies of build dependencies that are looked for."""


@dataclass(frozen=True, order=True, kw_only=True)
class Missing:
    """What the index does not have. ``file``: empty where no file was found."""

    project: str
    version: str
    file: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Files by their key, each with the project that it is of; what is missing, and the versions that
    have no file for a target."""

    files: Mapping[str, tuple[str, Listed]] = field(default_factory=dict)
    missing: frozenset[Missing] = frozenset()
    unfit: frozenset[str] = frozenset()

    def joined(self, other: Needed) -> Needed:
        return Needed(
            files={**self.files, **other.files}, missing=self.missing | other.missing, unfit=self.unfit | other.unfit
        )


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """``cached``, ``fetched``: names of files. ``bytes``: what was fetched. ``unresolved``: what uv or pip refused.
    ``paths``: of all of them at the server, as ``USER/INDEX/+f/…``."""

    cached: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    bytes: int = 0
    missing: tuple[Missing, ...] = ()
    unfit: tuple[str, ...] = ()
    unresolved: tuple[VerificationError, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Projects and files that clients asked for in vain."""

    projects: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Warming:
    """What to have fetched. ``top``: so many of the newest versions of each project, too. ``tell``: takes progress."""

    index: Index
    targets: Sequence[Target]
    top: int = 0
    build_deps: bool = False
    jobs: int = JOBS
    tell: Callable[[str], None] = print

    def run(self, sources: Sequence[Path], asked: Asked | None = None) -> Warmed:
        """Have it fetched. Raises NotReadable for a file that can't be read, NotReadyError without an answer."""
        wanted, unresolved = self.wanted(sources, asked or Asked())
        with threads(self.index, self.jobs) as each:
            needed = self.needed(wanted, each)
            if asked is not None:
                needed = needed.joined(self._asked_files(asked, each))
            found = fetch_all(self.index, needed.files, each, self.tell)
            new = needed.files if self.build_deps else {}
            for _ in range(ROUNDS):
                more, refused = self._build_deps(new)
                unresolved += refused
                added = self.needed(more, each)
                new = {key: one for key, one in added.files.items() if key not in needed.files}
                needed = needed.joined(added)
                if not new:
                    break
                found = found.joined(fetch_all(self.index, new, each, self.tell))
        failed = {
            Missing(project=needed.files[path][0], version="", file=needed.files[path][1].file.name, why=why)
            for path, why in found.failed.items()
        }
        return Warmed(
            cached=tuple(sorted(needed.files[path][1].file.name for path in found.cached)),
            fetched=tuple(sorted(needed.files[path][1].file.name for path in found.fetched)),
            bytes=sum(found.fetched.values()),
            missing=tuple(sorted(needed.missing | failed)),
            unfit=tuple(sorted(needed.unfit)),
            unresolved=tuple(unresolved),
            paths=tuple(sorted(filter(None, (_place(one.path) for _, one in needed.files.values())))),
        )

    # Versions

    def wanted(
        self, sources: Sequence[Path], asked: Asked
    ) -> tuple[dict[Target, list[Wanted]], list[VerificationError]]:
        """What each target needs: lock files as they are, everything else resolved."""
        found: dict[Target, list[Wanted]] = {target: [] for target in self.targets}
        refused: list[VerificationError] = []
        with TemporaryDirectory(prefix="deployer-warm-") as directory:
            for path in sources:
                if is_lock(path):
                    listed = read(path)
                    for target in self.targets:
                        found[target] += [item for item in listed if item.applies(target.environment)]
                else:
                    self._resolve(path, path.name, Path(directory), found, refused)
            for project in asked.projects:
                # Each on its own: a name that no upstream has must not hide the others.
                self._resolve_lines([project], project, Path(directory), found, refused)
        return found, refused

    def _resolve_lines(
        self,
        lines: Sequence[str],
        what: str,
        directory: Path,
        found: dict[Target, list[Wanted]],
        refused: list[VerificationError],
    ) -> None:
        path = directory / "wanted.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._resolve(path, what, directory, found, refused)

    def _resolve(
        self,
        path: Path,
        what: str,
        directory: Path,
        found: dict[Target, list[Wanted]],
        refused: list[VerificationError],
    ) -> None:
        resolver = Resolver.of(directory)
        for target in self.targets:
            self.tell(f"resolving {what} for {target.text}")
            try:
                found[target] += resolver.resolve(path, target, simple_url=self.index.simple_url, what=what)
            except VerificationError as error:
                refused.append(error)

    def _build_deps(
        self, files: Mapping[str, tuple[str, Listed]]
    ) -> tuple[dict[Target, list[Wanted]], list[VerificationError]]:
        found: dict[Target, list[Wanted]] = {target: [] for target in self.targets}
        refused: list[VerificationError] = []
        sources = [one for _, one in files.values() if not one.file.is_wheel]
        # Many have the same.
        groups = {build_requirements(self.index, one): one.file.name for one in sources}
        groups.pop((), None)
        with TemporaryDirectory(prefix="deployer-warm-") as directory:
            for lines, name in sorted(groups.items()):
                self._resolve_lines(lines, f"the build requirements of {name}", Path(directory), found, refused)
        return found, refused

    # Files

    def needed(self, wanted: Mapping[Target, Sequence[Wanted]], each: Each) -> Needed:
        """The files of these versions."""
        pages = self._pages(names([item for items in wanted.values() for item in items]), each)
        files: dict[str, tuple[str, Listed]] = {}
        missing: set[Missing] = set()
        unfit: set[str] = set()
        for target, items in wanted.items():
            for item in items:
                page = pages[item.project]
                chosen = page if isinstance(page, str) else page.chosen(item, target)
                if chosen is None:
                    unfit.add(f"{item.project} {item.version} has no file for {target.text}")
                elif isinstance(chosen, str):
                    missing.add(Missing(project=item.project, version=item.version, file="", why=chosen))
                else:
                    files[chosen.key] = (item.project, chosen)
            for project in {item.project for item in items} if self.top else ():
                page = pages[project]
                if not isinstance(page, str):
                    files |= {one.key: (project, one) for one in page.newest(self.top, target)}
        return Needed(files=files, missing=frozenset(missing), unfit=frozenset(unfit))

    def _pages(self, projects: Sequence[str], each: Each) -> dict[str, ProjectPage | str]:
        """The page of each project, or why there is none."""

        def ask(project: str) -> ProjectPage | str:
            try:
                page = self.index.page(project)
            except NotFetched as error:
                return str(error)
            return page if page.entries else f"{self.index.name} has no project {project}"

        return dict(zip(projects, each(ask, projects), strict=True))

    def _asked_files(self, asked: Asked, each: Each) -> Needed:
        pages = self._pages(sorted({project for project, _ in asked.files}), each)
        needed = Needed()
        for project, name in asked.files:
            page = pages[project]
            listed = page if isinstance(page, str) else (page.file(name) or "no such file")
            if isinstance(listed, str):
                hole = Missing(project=project, version="", file=name, why=listed)
                needed = replace(needed, missing=needed.missing | {hole})
            else:
                needed = replace(needed, files={**needed.files, listed.key: (project, listed)})
        return needed


def _place(path: str) -> str:
    """``USER/INDEX/+f/…`` of the address of a file on the server; empty for a file elsewhere."""
    found = re.search(r"[^/]+/[^/]+/\+[ef]/.+", unquote(path))
    return found[0] if found else ""


def error_of(warmed: Warmed) -> DeployerError | None:
    """The finding of a run: something is missing, or was not resolved."""
    lines = [f"{one.file or f'{one.project} {one.version}'.strip()}: {one.why}" for one in warmed.missing]
    for refused in warmed.unresolved:
        lines += [refused.message, *(f"  {line}" for line in refused.details)]
    if not lines:
        return None
    number = len(warmed.missing) + len(warmed.unresolved)
    return VerificationError(
        f"{number} {'files or versions are' if number > 1 else 'file or version is'} missing",
        hint="correct the files of requirements, or see why an upstream does not answer: deployer doctor",
        details=tuple(lines[:60]),
    )
