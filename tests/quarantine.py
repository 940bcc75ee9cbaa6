"""Which tests may need a second try: ``python -m tests.quarantine FAILED_FIRST FAILED_AGAIN`` judges two runs.

Both arguments are copies of pytest's ``lastfailed`` file. The exit code is 1 when a test failed twice, or failed once
and is not in ``quarantine.toml``.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("quarantine.toml")
EXPIRES = timedelta(days=60)


@dataclass(frozen=True, kw_only=True)
class Entry:
    id: str
    reason: str
    since: date


def read(path: Path = FILE) -> tuple[Entry, ...]:
    """The entries of a quarantine file. Raises TypeError for a missing or unknown key."""
    return tuple(Entry(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("test", ()))


def expired(entries: Iterable[Entry], today: date) -> list[str]:
    """The ids of entries that are too old, or of a day to come."""
    return [entry.id for entry in entries if not timedelta() <= today - entry.since <= EXPIRES]


def unknown(entries: Iterable[Entry], root: Path) -> list[str]:
    """The ids of entries whose test is not in the tree."""
    return [entry.id for entry in entries if not _exists(entry.id, root)]


def _exists(test: str, root: Path) -> bool:
    file, _, name = test.partition("[")[0].partition("::")
    path = root / file
    return bool(name) and path.is_file() and f"def {name.rpartition('::')[2]}(" in path.read_text(encoding="utf-8")


def verdict(first: Iterable[str], again: Iterable[str], entries: Iterable[Entry]) -> tuple[int, list[str]]:
    """The exit code, and one line for each test that failed at the first try."""
    quarantined = {entry.id: entry for entry in entries}
    failed_twice = set(again)
    code, lines = 0, []
    for test in sorted({*first, *failed_twice}):
        entry = quarantined.get(test) or quarantined.get(test.partition("[")[0])
        if test in failed_twice:
            code, line = 1, f"FAILED {test}"
        elif entry is None:
            code, line = 1, f"FLAKY {test}: passed at the second try only, and is not in {FILE.name}"
        else:
            line = f"QUARANTINED {test}: passed at the second try only ({entry.reason}, since {entry.since})"
        lines.append(line)
    return code, lines


def main(first: str, again: str) -> int:
    code, lines = verdict(json.loads(Path(first).read_bytes()), json.loads(Path(again).read_bytes()), read())
    print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
