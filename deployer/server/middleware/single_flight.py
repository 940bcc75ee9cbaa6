"""Single flight: one job per key at a time; a caller that wants what is under way waits for it and gets its result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Result = TypeVar("Result")
CHECK_EVERY = 0.1
"""Seconds between two checks of whether a client may go on waiting."""
PATIENCE = 1.0
"""Seconds that a client waits for a new page before it gets the known one."""


class Flight(Generic[Result]):
    """A job under way. It runs in a thread of its own, so a client that disconnects does not end it for the others."""

    def __init__(self, job: Callable[[], Result]) -> None:
        self._job = job
        self._done = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the job. Callers go on waiting until :meth:`finish`."""
        try:
            self._result = self._job()
        except BaseException as error:  # raised again for each caller
            self._error = error

    def finish(self) -> None:
        """Wake all callers."""
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether the job is finished within ``seconds``."""
        return self._done.wait(seconds)

    @property
    def result(self) -> Result:
        """The result of a finished job. Raises what the job raised."""
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101 - only read after it is finished
        return self._result


class SingleFlight(Generic[Result]):
    """All jobs under way, by each of their keys. ``name``: start of their threads' names."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._under_way: dict[str, Flight[Result]] = {}

    def join(self, keys: Collection[str], job: Callable[[], Result]) -> tuple[Flight[Result], bool]:
        """The flight for any of ``keys``, and whether this call started it: for all ``keys``, with ``job``.

        Raises RuntimeError when no thread can be started.
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

    def _fly(self, keys: Collection[str], flight: Flight[Result]) -> None:
        flight.run()
        with self._lock:
            for key in keys:
                del self._under_way[key]
        flight.finish()
