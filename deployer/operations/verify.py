"""Downloads by this host's installers through the index: the first time, again, and with the upstreams cut.

Where each file came from is read in the server's access log, and how often upstreams were asked in its statistics: an
installer that is led past the index can't report it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployer.clients.client import Account, ClientSettings
from deployer.clients.downloads import Download, Installer, Release, bypasses, installers
from deployer.deployment.find import Deployment
from deployer.devpi.api import DevpiApi
from deployer.errors import ConflictError, DeployerError, VerificationError
from deployer.protocol import parsed
from deployer.ui.output import UI

PATIENCE = 3.0
"""Seconds that the access log may lag behind; it is written and counted once a second."""
EVERY = 0.1
COUNTED = 1.2
"""Seconds in which the statistics have what the server knows now."""


class Run(StrEnum):
    FIRST = "first"
    AGAIN = "again"
    CUT = "upstream cut"


GOALS = {Run.FIRST: 10.0, Run.AGAIN: 0.5, Run.CUT: 0.3}
"""Seconds that one download of one small package should take at most."""


class Origin(StrEnum):
    UPSTREAM = "upstream"
    HERE = "here"
    PAST = "past the index"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class File:
    """One file that was downloaded. ``bytes``: that the server sent of it."""

    name: str
    version: str
    origin: Origin
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of one installer. ``start``: seconds of ``seconds`` in which it does nothing but start. ``asked``:
    requests to upstreams meanwhile, by anybody."""

    client: str
    through: str
    run: Run
    seconds: float
    start: float
    goal: float
    asked: int
    files: tuple[File, ...]

    def count(self, origin: Origin) -> int:
        return sum(file.origin is origin for file in self.files)

    @property
    def json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3), "start": round(self.start, 3)}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """``notes``: what could not be shown, and why; ``error``: what is wrong."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    error: DeployerError | None


def trace(lines: Iterable[str], releases: Sequence[Release]) -> tuple[File, ...]:
    """Where each of ``releases`` came from, by the lines that the access log got meanwhile. Pure."""
    sent: dict[Release, int] = {}
    fetched: set[Release] = set()
    for line in lines:
        try:
            found = parsed(line.encode())
            path, status, count = str(found["path"]), int(found["status"]), int(found["bytes"])
            from_upstream = bool(found["fetched"])
        except (ValueError, KeyError, TypeError):
            continue
        filename = path.rpartition("/")[2]
        if status not in (200, 206) or not filename.endswith((".whl", ".whl.metadata")) or filename.count("-") < 2:
            continue
        release = Release.of(filename.removesuffix(".metadata"))
        if from_upstream:  # for the metadata, the server may have fetched the whole file
            fetched.add(release)
        if filename.endswith(".whl"):
            sent[release] = sent.get(release, 0) + count
    return tuple(
        File(name=one.name, version=one.version, origin=_origin(one, sent, fetched), bytes=sent.get(one, 0))
        for one in releases
    )


def _origin(release: Release, sent: Mapping[Release, int], fetched: set[Release]) -> Origin:
    if release not in sent:
        return Origin.PAST
    return Origin.UPSTREAM if release in fetched else Origin.HERE


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One verification of a deployment. ``wanted``: the last words of an installer's command line."""

    deployment: Deployment
    settings: ClientSettings
    wanted: tuple[str, ...]
    cut: bool
    traced: bool
    ui: UI

    def run(self) -> Verified:
        """Raises VerificationError when an installer fails, ConflictError when there is none."""
        account = Account.of(os.environ)
        found = installers(self.settings, account)
        if not found:
            raise ConflictError("neither pip nor uv is installed", hint="install one of them")
        rows: list[Row] = []
        starts = {installer.name: installer.start() for installer in found}
        through = []
        for installer in found:
            rows.append(self._row(installer, Run.FIRST, starts))
            if not rows[-1].count(Origin.PAST):  # else the rest would tell nothing of the index
                rows.append(self._row(installer, Run.AGAIN, starts))
                through.append(installer)
        notes = list(_notes(rows))
        if self.cut:
            with self._offline():
                rows += [self._row(installer, Run.CUT, starts) for installer in through]
        else:
            notes.append("the upstreams were not cut")
        if not self.traced:
            notes.append("where files came from is unknown: without nginx the server has no access log")
        error = next((error for one in found if (error := self._past(one, rows, account)) is not None), None)
        return Verified(rows=tuple(rows), notes=tuple(notes), error=error or _asked_while_cut(rows))

    def _row(self, installer: Installer, run: Run, starts: Mapping[str, float]) -> Row:
        before, asked = self._log(), self._asked()
        with (
            TemporaryDirectory(prefix="deployer-verify-") as room,
            self.ui.working("verify", f"{installer.name}: {run}"),
        ):
            done = installer.download(self.wanted, Path(room))
        if done.failed:
            raise self._failure(installer, run, done)
        files = self._files(done, before)
        self.ui.step("verify", f"{installer.name}: {run}: {done.seconds:.2f} s")
        return Row(
            client=installer.name,
            through="its files" if installer.configured else "variables, as with deployer exec",
            run=run,
            seconds=done.seconds,
            start=starts[installer.name],
            goal=GOALS[run],
            asked=self._asked() - asked,
            files=files,
        )

    def _files(self, done: Download, before: Counter[str]) -> tuple[File, ...]:
        if not self.traced:
            return tuple(
                File(name=one.name, version=one.version, origin=Origin.UNKNOWN, bytes=0) for one in done.releases
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            files = trace((self._log() - before).elements(), done.releases)
            if all(file.origin is not Origin.PAST for file in files) or time.monotonic() > deadline:
                time.sleep(COUNTED)
                return files
            time.sleep(EVERY)

    def _log(self) -> Counter[str]:
        place = self.deployment.server_dir
        return Counter(place.access_log() if place is not None and self.traced else ())

    def _asked(self) -> int:
        """Requests to upstreams so far."""
        place = self.deployment.server_dir
        try:
            counts = parsed((place.statistics() or "{}") if place is not None else "{}")
            return sum(int(one["requests"]) for one in counts.get("upstreams", {}).values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return 0

    @contextmanager
    def _offline(self) -> Iterator[None]:
        """Cut the server off from its upstreams, unless it is offline anyway."""
        key = self.deployment.proof_key(otherwise="deployer verify --no-cut")
        with DevpiApi(self.deployment.url) as api:
            was = api.identity().offline
            try:
                if not was:
                    api.switch_offline(offline=True, proof_key=key)
                yield
            finally:
                if not was:
                    api.switch_offline(offline=False, proof_key=key)

    def _failure(self, installer: Installer, run: Run, done: Download) -> DeployerError:
        wanted = " ".join(self.wanted)
        hint = "deployer doctor"
        if run is Run.CUT:
            hint = "download it once while the upstream answers, then deployer verify again"
        return VerificationError(f"{installer.name} can't download {wanted} ({run})", hint=hint, details=done.said)

    def _past(self, installer: Installer, rows: Sequence[Row], account: Account) -> DeployerError | None:
        mine = [file for row in rows if row.client == installer.name for file in row.files]
        past = sorted({f"{file.name} {file.version}" for file in mine if file.origin is Origin.PAST})
        if not past:
            return None
        causes = bypasses(installer, self.settings, account, Path.cwd())
        shown = f"{', '.join(past[:3])}{' and more' * (len(past) > 3)}"
        why = f": {causes[0]}" if causes else ""
        variable = causes[0].split()[0] if causes else ""
        cure = "deployer doctor"
        if causes:
            cure = f"unset {variable}" if variable in account.env else "remove that setting"
            cure += ", or add its index to the bases of ours"
        return VerificationError(
            f"{installer.name} got {shown} past {self.settings.index_url}{why}", hint=cure, details=causes[1:]
        )


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.run is Run.FIRST and row.files and not row.count(Origin.UPSTREAM) and row.count(Origin.HERE):
            yield f"{row.client}: every file was here already; for a first time: deployer verify PACKAGE==VERSION"


def _asked_while_cut(rows: Sequence[Row]) -> DeployerError | None:
    asked = sum(row.asked for row in rows if row.run is Run.CUT)
    if not asked:
        return None
    return VerificationError(f"the server asked upstreams {asked} times while it was offline", hint="deployer logs")


def verification(
    deployment: Deployment, settings: ClientSettings, wanted: Sequence[str], *, cut: bool, ui: UI
) -> Verification:
    """The verification of a server that runs. Raises NotReadyError when it does not answer."""
    with DevpiApi(deployment.url) as api:
        front = api.identity().front or ""
    traced = front.startswith("nginx") and deployment.server_dir is not None
    return Verification(deployment=deployment, settings=settings, wanted=tuple(wanted), cut=cut, traced=traced, ui=ui)
