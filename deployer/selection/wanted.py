"""One version of a project, as a lock file names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from deployer.errors import UsageError


class NotReadable(UsageError):
    """A file that names no selection: it can't be read, or is damaged, or has a requirement without a version."""


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """A file of a release. ``sha256``: hex, empty where the lock file has another hash. ``size``: bytes, if known."""

    name: str
    sha256: str = ""
    size: int | None = None

    @property
    def is_wheel(self) -> bool:
        return self.name.endswith(".whl")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """``project``: in PEP 503's normal form. ``files``: empty where the format names none. ``sha256s``: then, the
    hashes that a file may have (empty: any). ``markers``: environment markers, one must hold (empty: everywhere)."""

    project: str
    version: str
    files: tuple[LockedFile, ...] = ()
    sha256s: frozenset[str] = frozenset()
    markers: tuple[str, ...] = ()

    def joined(self, other: Wanted) -> Wanted:
        """The same version, wanted where this or ``other`` is."""
        everywhere = not self.markers or not other.markers
        return replace(
            self,
            files=tuple(sorted({*self.files, *other.files}, key=lambda file: file.name)),
            sha256s=self.sha256s | other.sha256s,
            markers=() if everywhere else tuple(sorted({*self.markers, *other.markers})),
        )

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Whether it is wanted in an environment (PEP 508), with any extra and any dependency group."""
        return not self.markers or any(_holds(marker, environment) for marker in self.markers)

    def allows(self, file: LockedFile) -> bool:
        """Whether the lock file has ``file``, of this version, by its name and hash."""
        if not self.files:
            return not self.sha256s or file.sha256 in self.sha256s
        return any(file.name == own.name and own.sha256 in ("", file.sha256) for own in self.files)


_EXTRAS = re.compile(r"""\bextra\s*==\s*['"]([^'"]+)['"]""")
_SETS = re.compile(r"\b(extras|dependency_groups)\b")


def _holds(text: str, environment: Mapping[str, str]) -> bool:
    from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

    if _SETS.search(text):
        return True  # which extras and groups are installed is not known here
    try:
        marker = Marker(text)
        return any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *_EXTRAS.findall(text)))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return True  # better a file too many than one that is missing
