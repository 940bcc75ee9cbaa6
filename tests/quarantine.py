"""What a failed test may still mean: ``python -m tests.quarantine FAILED_FIRST FAILED_AGAIN...`` judges several runs.

All arguments are copies of pytest's ``lastfailed`` file: of the whole run, and of each later try of what failed in it.
A test that failed once and passed at every later try was disturbed by what ran beside it: such a test is reported, and
the exit code is 1 only when they are in more than TOLERATED files. It is 1 as well when a test failed again. A test in
``quarantine.toml`` has to pass at one of the later tries.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("quarantine.toml")
EXPIRES = timedelta(days=60)
TOLERATED = 2
"""Files, of some 300, with tests that fail beside others and pass alone each time; those of one file share a server.
More mean a fault, or a machine that is no measure."""


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


def verdict(first: Iterable[str], tries: Sequence[Iterable[str]], entries: Iterable[Entry]) -> tuple[int, list[str]]:
    """The exit code, and one line for each test that failed. ``tries``: what failed in each later try, at least one."""
    quarantined = {entry.id: entry for entry in entries}
    failures = Counter(test for failed in tries for test in set(failed))
    failed, flaky, lines = False, set(), []
    for test in sorted({*first, *failures}):
        entry, passed = quarantined.get(test) or quarantined.get(test.partition("[")[0]), len(tries) - failures[test]
        if passed == 0 or (passed < len(tries) and entry is None):
            failed, line = True, f"FAILED {test}: passed {passed} of {len(tries)} later tries"
        elif entry is not None:
            why = f"{entry.reason}, since {entry.since}"
            line = f"QUARANTINED {test}: passed {passed} of {len(tries)} later tries ({why})"
        else:
            flaky.add(test.partition("::")[0])
            line = f"FLAKY {test}: failed beside others, passed all {len(tries)} later tries"
        lines.append(line)
    if len(flaky) > TOLERATED:
        lines.append(f"TOO MANY files with flaky tests: {len(flaky)}, and {TOLERATED} are tolerated")
    return int(failed or len(flaky) > TOLERATED), lines


def main(first: str, *tries: str) -> int:
    code, lines = verdict(_failed(first), [_failed(path) for path in tries], read())
    print(*lines, sep="\n")
    return code


def _failed(path: str) -> Iterable[str]:
    found: dict[str, bool] = json.loads(Path(path).read_bytes())
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
