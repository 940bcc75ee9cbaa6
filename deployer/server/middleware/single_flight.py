"""One at a time for each key: who asks for what somebody already fetches waits for that instead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class Flight(Generic[Outcome]):
    """A job under way, in a thread of its own, so that nobody who waits for it can take it down."""

    def __init__(self, job: Callable[[], Outcome]) -> None:
        self._job = job
        self._done = threading.Event()
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the job; nobody is told yet."""
        try:
            self._outcome = self._job()
        except BaseException as error:  # told to whoever waits
            self._error = error

    def land(self) -> None:
        """Let everybody who waits go on."""
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        return self._done.wait(seconds)

    @property
    def outcome(self) -> Outcome:
        """What came of it, once it is over. Raises what the job raised."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None  # noqa: S101 - only asked for when it is over
        return self._outcome


class Flights(Generic[Outcome]):
    """All jobs under way, by each of their keys."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._under_way: dict[str, Flight[Outcome]] = {}

    def join(self, keys: Collection[str], job: Callable[[], Outcome]) -> tuple[Flight[Outcome], bool]:
        """A flight for one of ``keys`` at least, and whether this call started it, for all of them, with this ``job``.

        Raises RuntimeError.
        """
        with self._lock:
            for key in keys:
                if key in self._under_way:
                    return self._under_way[key], False
            flight = Flight(job)
            started = dict.fromkeys(keys, flight)
            name = f"{self._name} {' '.join(started)}"
            threading.Thread(target=self._fly, args=(tuple(started), flight), name=name, daemon=True).start()
            self._under_way.update(started)
            return flight, True

    def _fly(self, keys: Collection[str], flight: Flight[Outcome]) -> None:
        flight.run()
        with self._lock:
            for key in keys:
                del self._under_way[key]
        flight.land()
