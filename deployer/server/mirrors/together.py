"""Group commit: one commit for what several threads want to store at the same time.

A commit costs some milliseconds, whatever is in it, and only one can happen at a time. Files come faster than that: the
threads that wait for their turn would become thousands, each with open files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


@dataclass
class _Waiting(Generic[Thing]):
    thing: Thing
    done: bool = False
    error: BaseException | None = None


class Together(Generic[Thing]):
    """``store``: stores all things that it gets, or none and raises. ``key``: of things that it can't get together.

    ``turn``: the lock that is held while it runs. ``most``: things that it gets at once.
    """

    def __init__(
        self,
        store: Callable[[list[Thing]], None],
        *,
        key: Callable[[Thing], Hashable],
        turn: threading.Lock,
        most: int,
    ) -> None:
        self._store, self._key, self._turn, self._most = store, key, turn, most
        self._queue: list[_Waiting[Thing]] = []
        self._changed = threading.Condition()

    def add(self, thing: Thing) -> None:
        """Store a thing, with others if there are some; return when it is stored. Raises what ``store`` raises."""
        own = _Waiting(thing)
        with self._changed:
            self._queue.append(own)
        while not own.done:
            with self._turn:
                if not own.done:  # another thread did it meanwhile
                    self._run(self._take())
        if own.error is not None:
            raise own.error

    def wait_for_room(self, most: int, seconds: float) -> bool:
        """Wait until fewer than ``most`` things wait for their turn; whether that was so within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._queue) < most, seconds)

    def _take(self) -> list[_Waiting[Thing]]:
        """The first ones of the queue, none of which has the key of another one."""
        taken: dict[Hashable, _Waiting[Thing]] = {}
        with self._changed:
            for one in self._queue:
                if len(taken) < self._most:
                    taken.setdefault(self._key(one.thing), one)
            self._queue = [one for one in self._queue if taken.get(self._key(one.thing)) is not one]
            self._changed.notify_all()
        return list(taken.values())

    def _run(self, batch: list[_Waiting[Thing]]) -> None:
        try:
            self._try(batch)
        finally:
            for one in batch:
                if not one.done:  # this thread is being ended
                    one.error, one.done = RuntimeError("storing was interrupted"), True

    def _try(self, batch: list[_Waiting[Thing]]) -> None:
        try:
            self._store([one.thing for one in batch])
        except Exception as error:
            if len(batch) > 1:  # one of them fails, and the others are stored
                for one in batch:
                    self._try([one])
                return
            batch[0].error = error
        for one in batch:
            one.done = True
