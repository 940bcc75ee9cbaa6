"""Prove that requirements and lock files can be installed without an upstream, and list what is missing.

For deployer's own Python, pip and uv install in a network whose only way out is the index. For other Pythons and
platforms uv resolves in such a network, and each file is read. The server answers these requests as if it was offline;
other clients are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deployer.clients.resolvers import Resolver, installers
from deployer.errors import VerificationError
from deployer.host.isolation import URL, isolated
from deployer.operations.offline_check.gateway import Gateway
from deployer.operations.warm.index import Index, NotFetched
from deployer.operations.warm.threads import Each, threads
from deployer.selection import Wanted, is_lock, read
from deployer.selection.pages import Listed, ProjectPage, names
from deployer.selection.targets import Target

JOBS = 8
"""Files at a time."""


@dataclass(frozen=True, order=True, kw_only=True)
class Hole:
    """What is not here. ``by``: pip, uv, or empty for what a lock file names. Words that are not known are empty."""

    source: str
    python: str
    platform: str
    by: str
    project: str = ""
    version: str = ""
    file: str = ""
    why: str

    @property
    def what(self) -> str:
        return self.file or f"{self.project} {self.version}".strip() or self.source


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One file for one target. ``installed_by``: who installed it; empty where it was resolved and read."""

    source: str
    target: Target
    installed_by: tuple[str, ...]
    files: int
    holes: tuple[Hole, ...]


@dataclass(frozen=True, kw_only=True)
class Checking:
    """What is checked. ``server``: address of the server; ``tell``: takes progress."""

    server: str
    index: str
    targets: Sequence[Target]
    tell: Callable[[str], None]

    def run(self, sources: Sequence[Path]) -> tuple[Checked, ...]:
        """Check each file for each target. The caller has made sure that networks can be made."""
        cache = Index(self.server, self.index)
        with threads(cache, JOBS) as each:
            return tuple(self._check(path, target, cache, each) for path in sources for target in self.targets)

    def _check(self, path: Path, target: Target, cache: Index, each: Each) -> Checked:
        self.tell(f"{path.name} for {target.text}")
        with (
            TemporaryDirectory(prefix="deployer-offline-") as name,
            Gateway(self.server) as gateway,
            isolated(Path(name), gateway.serve) as around,
        ):
            case = _Case(
                source=path,
                target=target,
                directory=Path(name),
                around=around,
                gateway=gateway,
                simple_url=f"{URL}/{self.index}/+simple/",
            )
            wanted, holes = case.versions()
            files, lacking = _files(wanted, case, cache, each)
            installed, refused = case.installed(wanted, self.tell)
        return Checked(
            source=str(path),
            target=target,
            installed_by=tuple(installed),
            files=files,
            holes=(*holes, *lacking, *refused),
        )


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One file for one target. ``around``: words before a program's, which give it a network of its own; ``gateway``:
    the way out of it, where ``simple_url`` is."""

    source: Path
    target: Target
    directory: Path
    around: tuple[str, ...]
    gateway: Gateway
    simple_url: str

    def versions(self) -> tuple[list[Wanted], list[Hole]]:
        """What the lock file names, or uv resolves."""
        if is_lock(self.source):
            return [item for item in read(self.source) if item.applies(self.target.environment)], []
        resolver = Resolver.of(self.directory, around=self.around)
        try:
            return list(resolver.resolve(self.source, self.target, simple_url=self.simple_url)), []
        except VerificationError as error:
            return [], self.refused(resolver.name, error.details)

    def installed(self, wanted: Sequence[Wanted], tell: Callable[[str], None]) -> tuple[list[str], list[Hole]]:
        """The installers that installed it, and what the others lack; none for another Python or platform."""
        if self.target.is_elsewhere:
            return [], []
        is_whole = is_lock(self.source)
        requirements = self.directory / "requirements.txt" if is_whole else self.source
        if is_whole:
            requirements.write_text(pinned(wanted), encoding="utf-8")
        done, holes = [], []
        for installer in installers(self.directory):
            self.gateway.forget()
            tell(f"{installer.name} installs {self.source.name}")
            said = installer.install(requirements, around=self.around, simple_url=self.simple_url, is_whole=is_whole)
            if said is None:
                done.append(installer.name)
            else:
                holes += self.refused(installer.name, said)
        return done, holes

    def hole(self, why: str, *, by: str = "", project: str = "", version: str = "", file: str = "") -> Hole:
        return Hole(
            source=str(self.source),
            python=self.target.python,
            platform=self.target.platform,
            by=by,
            project=project,
            version=version,
            file=file,
            why=why,
        )

    def refused(self, by: str, said: Sequence[str]) -> list[Hole]:
        """The holes that a program met: what it asked for in vain, else what it said."""
        holes = [self.hole("nothing of it is here", by=by, project=project) for project in self.gateway.projects]
        holes += [self.hole("not here", by=by, file=name) for name in self.gateway.files]
        return holes or [self.hole(" ".join(line.strip() for line in said)[-500:], by=by)]


def _files(wanted: Sequence[Wanted], case: _Case, cache: Index, each: Each) -> tuple[int, list[Hole]]:
    """Read the file of each version from the cache; return their number, and the holes."""
    asked = names(wanted)
    pages = dict(zip(asked, each(lambda name: _page(cache, name), asked), strict=True))
    chosen: dict[str, tuple[Wanted, Listed]] = {}
    holes: list[Hole] = []
    for item in wanted:
        listed = pages[item.project].chosen(item, case.target)
        if isinstance(listed, Listed):
            chosen[listed.key] = (item, listed)
        elif listed is not None or not item.files:
            locked = case.target.chosen(item.files)
            name = locked.name if locked else ""
            holes.append(case.hole("not here", project=item.project, version=item.version, file=name))

    def read_file(pair: tuple[Wanted, Listed]) -> str:
        try:
            cache.fetch(pair[1], offline=True)
        except NotFetched as error:
            return str(error)
        return ""

    pairs = list(chosen.values())
    for (item, listed), why in zip(pairs, each(read_file, pairs), strict=True):
        if why:
            holes.append(case.hole(why, project=item.project, version=item.version, file=listed.file.name))
    return len(chosen), holes


def _page(cache: Index, project: str) -> ProjectPage:
    try:
        return cache.page(project, offline=True)
    except NotFetched:
        return ProjectPage(project=project)


def pinned(wanted: Sequence[Wanted]) -> str:
    """Requirements of exactly these versions; with hashes, if the lock file has one of each file."""
    hashes = {(item.project, item.version): _hashes(item) for item in wanted}
    whole = all(hashes.values())
    lines = []
    for (project, version), known in sorted(hashes.items()):
        words = [f"{project}=={version}", *(f"--hash=sha256:{one}" for one in known if whole)]
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def _hashes(item: Wanted) -> list[str]:
    found = sorted({file.sha256 for file in item.files} | item.sha256s)
    return [] if "" in found else found
