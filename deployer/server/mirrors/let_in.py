"""Pages and files of mirrors as the rules of the mirror let them in (:mod:`deployer.server.guard.rules`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from typing import Any

from devpi_server.normalized import normalize_name

from deployer.server.devpi.links import place
from deployer.server.guard.rules import Held, Sifted, brief, canonical, parsed_version, sift, version_of
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.page import File, Page, project_candidates
from deployer.server.mirrors.render import HELD
from deployer.server.mirrors.store import Kept

NAMED = 100
"""Held-back files that a page names, the latest first."""
CANDIDATES = 20


def sifted(mirror: Mirror, project: str, page: Page, firsts: Mapping[str, File], now: float) -> Sifted:
    """The files of the mirror's page of a project, sorted by the rules of the mirror."""
    return sift(mirror.rules.about(project, now), page.lines, firsts)


def page_let_in(
    mirror: Mirror, project: str, page: Page, firsts: Mapping[str, File], now: float
) -> tuple[Page | None, float]:
    """The page without the files that are held back, None where none is; and until when it holds."""
    found = sifted(mirror, project, page, firsts, now)
    if not found.held:
        return None, found.until
    lines = b"".join(found.lines)
    return Page(_fields(mirror.name, project, page.fields, found), lines), found.until


def _fields(index: str, project: str, given: dict[str, Any], found: Sifted) -> dict[str, Any]:
    """The fields of a page without the versions of which every file is held back; it says what is held back."""
    fields = {**given, HELD: [*_listed(given.get(HELD)), *described(index, found.held)]}
    versions = given.get("versions")
    if isinstance(versions, list):
        gone = _versions((file for file, _ in found.held), project) - _versions(map(brief, found.lines), project)
        fields["versions"] = [one for one in versions if not (isinstance(one, str) and canonical(one) in gone)]
    return fields


def _listed(known: object) -> list[Any]:
    return known if isinstance(known, list) else []  # an upstream with rules says so, too


def described(index: str, held: Iterable[tuple[Mapping[str, Any], Held]]) -> list[dict[str, Any]]:
    """Held-back files as a page names them: some of them, the latest first."""
    latest = nlargest(NAMED, held, key=lambda one: str(one[0].get("upload-time") or ""))
    return [
        {"filename": file["filename"], "until": why.date, "rule": why.rule, "index": index, "reason": why.reason}
        for file, why in latest
    ]


def _versions(files: Iterable[Mapping[str, Any]], project: str) -> set[str]:
    return {canonical(version) for version in {version_of(file["filename"], project) for file in files} if version}


def file_held(mirror: Mirror, path: str, found: tuple[str, File, Kept] | None, now: float) -> Held | None:
    """Why the file at ``path`` below the mirror is held back; None for one that is let in.

    ``found``: its project, file object and page; None where no page names it. Then its age is unknown, and it may be
    of any project that its name begins with.
    """
    if found is not None:
        project, file, kept = found
        return mirror.rules.about(project, now).on(file, kept.head.first.get(file["filename"]))
    unknown: File = {"filename": path.rpartition("/")[2], "hashes": {}}
    verdicts = (mirror.rules.about(name, now).on(unknown) for name in _projects(unknown["filename"]))
    return next(filter(None, verdicts), None)


def _projects(filename: str) -> Iterator[str]:
    names = dict.fromkeys(str(normalize_name(name)) for name in project_candidates(filename) if name)
    yield from list(names)[:CANDIDATES] or [""]


def first_at(kept: Kept, path: str) -> File | None:
    """The file at ``path`` as it was at first, where the page has another one of its name."""
    return next((file for file in kept.head.first.values() if place(file) == path), None)


# The JSON API


def api_let_in(
    body: dict[str, Any], mirror: Mirror, project: str, firsts: Mapping[str, File], now: float
) -> Held | None:
    """Take the files that are held back out of a page of the JSON API.

    Returns why, if the release that the page is about is held back as a whole.
    """
    verdicts = mirror.rules.about(project, now)

    def on(file: object) -> Held | None:
        if not isinstance(file, dict) or not isinstance(file.get("filename"), str):
            return None
        hashes = file.get("digests")
        known = {"filename": file["filename"], "hashes": hashes if isinstance(hashes, dict) else {}}
        uploaded = file.get("upload_time_iso_8601") or file.get("upload_time")
        return verdicts.on({**known, "upload-time": uploaded}, firsts.get(file["filename"]))

    releases = body.get("releases")
    if isinstance(releases, dict):
        kept = {version: [file for file in _listed(files) if on(file) is None] for version, files in releases.items()}
        body["releases"] = {version: files for version, files in kept.items() if files or not releases[version]}
    urls = _listed(body.get("urls"))
    reasons = [on(file) for file in urls]
    body["urls"] = [file for file, held in zip(urls, reasons, strict=True) if held is None]
    return None if body["urls"] or not urls else next(filter(None, reasons), None)


def latest(releases: Mapping[str, Any]) -> str | None:
    """The latest version with a file that is not yanked, a pre-release only if there is no other; None for none."""
    found = [(parsed_version(version), version) for version, files in releases.items() if _is_whole(files)]
    known = [(parsed, version) for parsed, version in found if parsed is not None]
    final = [one for one in known if not one[0].is_prerelease] or known
    return max(final)[1] if final else None


def _is_whole(files: object) -> bool:
    return any(not (isinstance(file, dict) and file.get("yanked")) for file in _listed(files))
