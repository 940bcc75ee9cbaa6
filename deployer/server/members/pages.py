"""The pages of mirrors that the primary keeps, copied to its replicas before anybody asks them for one.

While the primary is down a replica serves what it knows, and a promoted one knows what files were at first. Nobody asks
an upstream for that: a page is copied as it is.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import dropwhile, islice

from devpi_server.log import threadlog

from deployer.server.upstream.client import NoAnswer

AT_ONCE = 200
"""Pages that one answer names."""
Name = tuple[str, str]
"""Mirror and project."""


@dataclass(frozen=True)
class Written:
    """Pages that were written since a mark. ``mark``: up to which; empty names: there are no others."""

    mark: str
    names: tuple[Name, ...]


class Journal:
    """Which pages a primary has, by when they were written last. ``all_names``: those from before this start."""

    def __init__(self, all_names: Callable[[], Iterable[Name]]) -> None:
        self._all_names = all_names
        self._id = secrets.token_hex(8)
        self._numbers: dict[Name, int] | None = None  # ascending
        self._last = 0
        self._lock = threading.Lock()

    def note(self, mirror: str, project: str) -> None:
        with self._lock:
            if self._numbers is not None:
                self._add((mirror, project))

    def since(self, mark: str) -> Written:
        """What was written after a mark; after one of another start, everything."""
        with self._lock:
            if self._numbers is None:
                self._numbers = {}
                for name in self._all_names():
                    self._add(name)
            known, _, number = mark.partition(":")
            after = int(number) if known == self._id and number.isdecimal() else 0
            if after >= self._last:
                return Written(f"{self._id}:{self._last}", ())
            newer = dropwhile(lambda item: item[1] <= after, self._numbers.items())
            found = tuple(islice(newer, AT_ONCE))
            return Written(f"{self._id}:{found[-1][1]}", tuple(name for name, _ in found))

    def _add(self, name: Name) -> None:
        assert self._numbers is not None  # noqa: S101 - only called then
        self._numbers.pop(name, None)
        self._last += 1
        self._numbers[name] = self._last


class Copying:
    """The thread of a replica that copies pages. ``copy``: copies one; raises NoAnswer."""

    def __init__(self, copy: Callable[[str, str], None]) -> None:
        self._copy = copy
        self._wanted: Written | None = None
        self._changed = threading.Condition()
        self._mark = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name="pages", daemon=True).start()

    @property
    def mark(self) -> str | None:
        """Up to which all pages are here; None while some are being copied."""
        with self._changed:
            return self._mark if self._wanted is None else None

    def take(self, written: Written) -> None:
        """Have these pages copied."""
        with self._changed:
            self._wanted = written
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                wanted = self._wanted
            if wanted is not None:
                done = all(self._copied(*name) for name in wanted.names)
                with self._changed:
                    self._mark = wanted.mark if done else self._mark
                    self._wanted = None

    def _copied(self, mirror: str, project: str) -> bool:
        """Whether the next page may be copied; False when the primary does not answer."""
        try:
            self._copy(mirror, project)
        except NoAnswer:
            return False
        except Exception as error:  # this page comes when somebody asks for it
            threadlog.error("%s: can't copy the page of %s: %s", mirror, project, error)
        return True
