"""Group commit: one call stores the things of several threads, and an error is raised in its own thread alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from deployer.server.mirrors.together import Together

PATIENCE = 60.0


class Store:
    """Stores numbers; the first call waits for :attr:`go`. ``refused``: numbers that it does not take."""

    def __init__(self, *refused: int, most: int = 100) -> None:
        self.calls: list[list[int]] = []
        self.stored: list[int] = []
        self.go, self.begun, self.turn = threading.Event(), threading.Event(), threading.Lock()
        self._refused = set(refused)
        self.together = Together(self._store, key=lambda number: number % 1000, turn=self.turn, most=most)

    def _store(self, numbers: list[int]) -> None:
        assert self.turn.locked()
        self.calls.append(numbers)
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if not self._refused.isdisjoint(numbers):
            raise LookupError(str(numbers))
        self.stored += numbers

    def add(self, number: int) -> str:
        try:
            self.together.add(number)
        except LookupError as error:
            return str(error)
        return ""

    def at_once(self, *numbers: int) -> dict[int, str]:
        """Add the numbers while the first one is being stored; return the error message of each, empty without one."""
        with ThreadPoolExecutor(len(numbers) + 1) as pool:
            first = pool.submit(self.add, 0)
            assert self.begun.wait(PATIENCE)
            others = {number: pool.submit(self.add, number) for number in numbers}
            deadline = time.monotonic() + PATIENCE
            while self.together.wait_for_room(len(numbers), 0.0):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            self.go.set()
            assert first.result() == ""
            return {number: told.result() for number, told in others.items()}


def test_what_comes_meanwhile_is_stored_by_one_call() -> None:
    store = Store()
    assert store.at_once(*range(1, 20)) == dict.fromkeys(range(1, 20), "")
    assert [sorted(call) for call in store.calls] == [[0], list(range(1, 20))]


def test_one_that_fails_fails_alone() -> None:
    store = Store(2)
    assert store.at_once(1, 2, 3) == {1: "", 2: "[2]", 3: ""}
    assert sorted(store.stored) == [0, 1, 3]


def test_no_call_has_more_than_allowed_or_two_of_one_key() -> None:
    store = Store(most=3)
    assert set(store.at_once(1, 2, 3, 4, 1001, 2001).values()) == {""}
    assert sorted(store.stored) == [0, 1, 2, 3, 4, 1001, 2001]
    assert all(len(call) <= 3 and len({number % 1000 for number in call}) == len(call) for call in store.calls)


def test_there_is_room_when_few_wait() -> None:
    store = Store()
    assert store.together.wait_for_room(1, 0.0)
    store.go.set()
    store.add(1)
    assert store.together.wait_for_room(1, 0.0)
    assert not store.together.wait_for_room(0, 0.01)


def test_an_interrupt_is_no_success_for_those_who_wait() -> None:
    store = Store(1)

    def interrupted(numbers: list[int]) -> None:
        store.calls.append(numbers)
        store.begun.set()
        assert store.go.wait(PATIENCE)
        if numbers != [0]:
            raise KeyboardInterrupt

    together = Together(interrupted, key=int, turn=store.turn, most=100)
    told: list[BaseException] = []

    def add(number: int) -> None:
        try:
            together.add(number)
        except BaseException as error:
            told.append(error)

    first, *others = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    first.start()
    assert store.begun.wait(PATIENCE)
    for thread in others:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    while together.wait_for_room(3, 0.0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.go.set()
    for thread in (first, *others):
        thread.join(PATIENCE)
    assert sorted(type(error).__name__ for error in told) == ["KeyboardInterrupt", "RuntimeError", "RuntimeError"]
