"""Known malicious releases, out of records in OSV's format (https://ossf.github.io/osv-schema/). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from deployer.devpi.fields import normal

ECOSYSTEM = "pypi"
_PREFIX = "MAL-"
_ALL = "*"


@dataclass(frozen=True)
class Collected:
    """``names``: by project (normalised name) and version (canonical; ``*`` for all) the advisory."""

    advisories: int = 0
    names: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, object]:
        return {"advisories": self.advisories, "names": self.names}


def collect(records: Iterable[object]) -> Collected:
    """The releases that advisories on malicious packages (``MAL-``) name; other records, and withdrawn ones, don't
    count. A record may be a list of records."""
    names: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for record in _flat(records):
        advisory = record.get("id")
        if not isinstance(advisory, str) or not advisory.startswith(_PREFIX) or record.get("withdrawn"):
            continue
        for project, version in _affected(record):
            seen.add(advisory)
            names.setdefault(project, {}).setdefault(version, advisory)
    return Collected(len(seen), {name: dict(sorted(names[name].items())) for name in sorted(names)})


def _flat(records: Iterable[object]) -> Iterator[dict[str, object]]:
    for record in records:
        if isinstance(record, list):
            yield from (one for one in record if isinstance(one, dict))
        elif isinstance(record, dict):
            yield record


def _affected(record: dict[str, object]) -> Iterator[tuple[str, str]]:
    from packaging.utils import canonicalize_version

    affected = record.get("affected")
    for one in affected if isinstance(affected, list) else ():
        package = one.get("package") if isinstance(one, dict) else None
        if not isinstance(package, dict) or str(package.get("ecosystem")).lower() != ECOSYSTEM:
            continue
        name = package.get("name")
        if not isinstance(name, str):
            continue
        versions = one.get("versions")
        listed = [version for version in versions if isinstance(version, str)] if isinstance(versions, list) else []
        # Without a list, or with a range that has no end, every version counts: a name that was made for it.
        found = listed if listed and not _is_open(one.get("ranges")) else [_ALL]
        yield from (
            (normal(name), version if version == _ALL else str(canonicalize_version(version))) for version in found
        )


def _is_open(ranges: object) -> bool:
    """Whether a range begins at the first version and has no end."""
    for one in ranges if isinstance(ranges, list) else ():
        events = one.get("events") if isinstance(one, dict) else None
        listed = [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
        ends = any("fixed" in event or "last_affected" in event for event in listed)
        if any(event.get("introduced") == "0" for event in listed) and not ends:
            return True
    return False
