"""The rules of the page store, with a changelog and a clock of our own; the real ones are in the integration tests."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.server.pages.changelog import EVERYTHING, Touched
from deployer.server.pages.store import NEVER, Key, PageStore, View, pack

KEY = ("root", "dev", "alpha")
OTHER = ("root", "dev", "beta")


class Log:
    """A changelog as the store sees it."""

    def __init__(self) -> None:
        self.entries: list[set[Touched]] = [set()]
        self.history = b"a"

    @property
    def serial(self) -> int:
        return len(self.entries) - 1

    def commit(self, *touched: Touched) -> int:
        self.entries.append(set(touched))
        return self.serial

    def raw(self, serial: int) -> bytes:
        return self.history + str(serial).encode()

    def since(self, seen: int, current: int) -> Iterator[tuple[int, set[Touched]]]:
        for serial in range(seen + 1, current + 1):
            yield serial, self.entries[serial]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(directory: Path, log: Log, clock: Clock, *, limit: int = 10**6, **settings: object) -> PageStore:
    return PageStore(directory, log, settings=settings, limit=limit, clock=clock)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path, log: Log, clock: Clock) -> PageStore:
    return make(tmp_path, log, clock)


def put(store: PageStore, key: Key, body: bytes, *, due: float, view: View, name: str = "json") -> bool:
    return store.put(key, name, body, pack(body), due=due, view=view)


def view(store: PageStore, first: int, own: int | None = None) -> View:
    return View(first=first, own=own, mark=store.mark)


def test_a_page_is_kept_until_its_project_changes(store: PageStore, log: Log) -> None:
    assert put(store, KEY, b"page", due=NEVER, view=view(store, 0))
    assert put(store, OTHER, b"other", due=NEVER, view=view(store, 0))
    assert store.read(KEY, "json") == b"page"
    log.commit("alpha")
    store.catch_up()
    assert store.read(KEY, "json") is None
    assert store.read(OTHER, "json") == b"other"
    log.commit(EVERYTHING)
    store.catch_up()
    assert store.read(OTHER, "json") is None


def test_an_answer_that_is_older_than_a_change_is_not_kept(store: PageStore, log: Log) -> None:
    old = view(store, 0)
    log.commit("alpha")
    store.catch_up()
    assert not put(store, KEY, b"old", due=NEVER, view=old)
    assert put(store, OTHER, b"fine", due=NEVER, view=old)
    assert put(store, KEY, b"new", due=NEVER, view=view(store, 1))


def test_an_answer_is_dropped_when_an_older_change_becomes_known(store: PageStore, log: Log) -> None:
    log.commit("alpha")
    assert put(store, KEY, b"old", due=NEVER, view=view(store, 0))
    store.catch_up()
    assert store.read(KEY, "json") is None


def test_an_answer_that_was_its_own_change_is_kept(store: PageStore, log: Log) -> None:
    own = log.commit("alpha")
    store.catch_up(own)
    assert put(store, KEY, b"fetched", due=NEVER, view=view(store, 0, own))


def test_an_answer_whose_transaction_was_restarted_over_a_change_is_not_kept(store: PageStore, log: Log) -> None:
    """It began with serial 0, somebody uploaded, and it went on with what it had read of the other index before."""
    log.commit("alpha")
    own = log.commit("alpha")
    store.catch_up(own)
    assert not put(store, KEY, b"half old", due=NEVER, view=view(store, 0, own))


def test_what_is_forgotten_by_hand_is_not_put_by_who_began_before(store: PageStore) -> None:
    began = view(store, 0)
    store.forget("alpha")
    assert not put(store, KEY, b"old", due=NEVER, view=began)
    assert put(store, OTHER, b"fine", due=NEVER, view=began)
    store.forget_all()
    assert not put(store, OTHER, b"old", due=NEVER, view=began)
    assert store.read(OTHER, "json") is None
    assert put(store, KEY, b"new", due=NEVER, view=view(store, 0))


def test_a_page_that_is_due_is_out_of_sight_and_can_be_put_back(
    store: PageStore, clock: Clock, log: Log, tmp_path: Path
) -> None:
    put(store, KEY, b"page", due=clock.now + 10, view=view(store, 0))
    assert store.read_stale(KEY, "json") is None
    clock.now += 10
    assert store.read(KEY, "json") is None
    assert store.read_stale(KEY, "json") == b"page"
    assert not (tmp_path / "pages/root/dev/alpha").exists()
    store.extend(KEY, 5)
    assert store.read(KEY, "json") == b"page"
    clock.now += 5
    assert store.read(KEY, "json") is None
    log.commit("alpha")
    store.catch_up()
    assert store.read_stale(KEY, "json") is None  # never again, whatever the upstream does


def test_the_oldest_go_when_there_is_no_room(tmp_path: Path, log: Log, clock: Clock) -> None:
    store = make(tmp_path, log, clock, limit=40_000)
    for number in range(20):
        key = ("root", "dev", f"project{number}")
        assert put(store, key, os.urandom(4000), due=NEVER, view=view(store, 0))
    there = [path for path in tmp_path.glob("pages/*/*/*/json*") if path.is_file()]
    assert sum(path.stat().st_size for path in there) <= 40_000
    assert store.read(("root", "dev", "project19"), "json") is not None
    assert store.read(("root", "dev", "project0"), "json") is None


@pytest.mark.parametrize("part", ["..", ".hidden", "a/b", "", "über"])
def test_names_that_could_lead_elsewhere_are_not_kept(store: PageStore, part: str) -> None:
    assert not put(store, ("root", part, "alpha"), b"page", due=NEVER, view=view(store, 0))


def test_a_disk_that_is_full_costs_nobody_an_answer(store: PageStore, tmp_path: Path) -> None:
    (tmp_path / "pages/root").write_text("in the way")
    assert not put(store, KEY, b"page", due=NEVER, view=view(store, 0))
    assert store.read(KEY, "json") is None
    (tmp_path / "pages/root").unlink()
    assert put(store, KEY, b"page", due=NEVER, view=view(store, 0))


def test_pages_outlive_a_restart_but_for_what_changed_meanwhile(tmp_path: Path, log: Log, clock: Clock) -> None:
    first = make(tmp_path, log, clock, version=1)
    for key, due in ((KEY, NEVER), (OTHER, clock.now + 10)):
        assert put(first, key, b"page", due=due, view=view(first, 0))
    log.commit("alpha")  # and a kill before anybody looked
    second = make(tmp_path, log, clock, version=1)
    assert second.read(KEY, "json") is None
    assert second.read(OTHER, "json") == b"page"
    clock.now += 10
    assert second.read(OTHER, "json") is None
    assert second.read_stale(OTHER, "json") == b"page"


@pytest.mark.parametrize("change", ["settings", "history", "checkpoint"])
def test_pages_of_other_data_or_another_version_go(tmp_path: Path, log: Log, clock: Clock, change: str) -> None:
    first = make(tmp_path, log, clock, version=1)
    assert put(first, KEY, b"page", due=NEVER, view=view(first, 0))
    match change:
        case "history":
            log.history = b"b"
        case "checkpoint":
            (tmp_path / "pages.stamp").write_text("{")
    second = make(tmp_path, log, clock, version=2 if change == "settings" else 1)
    assert second.read(KEY, "json") is None
    assert not any(tmp_path.glob("pages/*"))


def test_pages_are_closed_to_other_users(store: PageStore, tmp_path: Path, log: Log, clock: Clock) -> None:
    previous = os.umask(0)
    try:
        make(tmp_path, log, clock)
        assert put(store, KEY, b"page", due=clock.now + 10, view=view(store, 0))
        made = [path.name for path in (tmp_path / "pages").rglob("*") if path.is_file()]
        clock.now += 10
        assert store.read_stale(KEY, "json") == b"page"
    finally:
        os.umask(previous)
    assert sorted(made) == ["json", "json.gz"]
    for path in (tmp_path / "pages", tmp_path / "stale", tmp_path / ".trash"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_an_own_commit_excuses_only_itself(store: PageStore, log: Log) -> None:
    """A request shows its own commit, and neither one before it that it did not begin with nor one after it."""
    own = log.commit("alpha")
    mine = view(store, 0, own)
    assert store.is_current("alpha", mine)
    log.commit("beta")
    assert store.is_current("alpha", mine)
    assert not store.is_current("beta", mine)
    log.commit("alpha")
    assert not store.is_current("alpha", mine)
    assert store.is_current("alpha", view(store, log.serial, None))


def test_an_own_commit_does_not_excuse_a_change_of_an_index(store: PageStore, log: Log) -> None:
    own = log.commit("alpha")
    assert store.is_current("alpha", view(store, 0, own))
    log.commit(EVERYTHING)
    assert not store.is_current("alpha", view(store, 0, own))
    again = log.commit("alpha")
    assert not store.is_current("alpha", view(store, 0, again))
    assert store.is_current("alpha", view(store, again - 1, again))
    assert not store.is_current("alpha", view(store, again - 2, again))


def test_what_is_forgotten_is_not_read_again_and_the_rest_is(store: PageStore, clock: Clock) -> None:
    for key in (KEY, OTHER):
        assert put(store, key, b"page", due=clock.now + 10, view=view(store, 0))
    store.forget("alpha")
    assert (store.read(KEY, "json"), store.read(OTHER, "json")) == (None, b"page")
    clock.now += 10
    store.forget("beta")
    assert store.read_stale(OTHER, "json") is None
    # Each time anew: who began between two of them knows only the first.
    began = view(store, 0)
    store.forget("alpha")
    assert not put(store, KEY, b"old", due=NEVER, view=began)
    began = view(store, 0)
    store.forget_all()
    assert not put(store, KEY, b"old", due=NEVER, view=began)
    began = view(store, 0)
    store.forget_all()
    assert not put(store, KEY, b"old", due=NEVER, view=began)


def test_a_new_page_takes_the_place_of_a_stale_one(store: PageStore, clock: Clock) -> None:
    for content in (b"first", b"second"):
        assert put(store, KEY, content, due=clock.now + 10, view=view(store, 0))
        assert store.read(KEY, "json") == content
        clock.now += 10
        assert store.read_stale(KEY, "json") == content
    store.extend(KEY, 5)
    assert put(store, KEY, b"third", due=clock.now + 10, view=view(store, 0))
    assert (store.read(KEY, "json"), store.read_stale(KEY, "json")) == (b"third", None)


def test_a_page_that_got_more_time_keeps_no_other_from_its_own(store: PageStore, clock: Clock) -> None:
    assert put(store, KEY, b"page", due=clock.now + 1, view=view(store, 0))
    assert put(store, KEY, b"page", due=clock.now + 100, view=view(store, 0), name="html")
    assert put(store, OTHER, b"page", due=clock.now + 2, view=view(store, 0))
    clock.now += 3
    assert store.read_stale(OTHER, "json") == b"page"
    assert store.read(KEY, "json") == b"page"


def test_nothing_can_be_extended_that_is_not_there(store: PageStore) -> None:
    store.extend(KEY, 5)
    assert store.read(KEY, "json") is None


def test_stale_pages_go_before_those_that_are_right(tmp_path: Path, log: Log, clock: Clock) -> None:
    store = make(tmp_path, log, clock, limit=20_000)
    first, second, third = (("root", "dev", f"project{number}") for number in range(3))
    assert put(store, first, os.urandom(4000), due=NEVER, view=view(store, 0))
    assert put(store, second, os.urandom(4000), due=clock.now + 1, view=view(store, 0))
    clock.now += 1
    assert store.read_stale(second, "json") is not None
    assert put(store, third, os.urandom(4000), due=NEVER, view=view(store, 0))
    assert store.read_stale(second, "json") is None
    assert store.read(first, "json") is not None and store.read(third, "json") is not None


def test_room_is_counted_over_a_restart_and_the_first_to_become_due_go(tmp_path: Path, log: Log, clock: Clock) -> None:
    keys = [("root", "dev", name) for name in ("c", "a", "b")]
    first = make(tmp_path, log, clock, version=1)
    for number, key in enumerate(keys):
        assert put(first, key, os.urandom(4000), due=clock.now + 10 + number, view=view(first, 0))
    second = make(tmp_path, log, clock, limit=25_000, version=1)
    assert put(second, KEY, os.urandom(4000), due=NEVER, view=view(second, 0))
    assert [second.read(key, "json") is None for key in (*keys, KEY)] == [True, False, False, False]


def test_room_is_free_again_when_all_pages_went(tmp_path: Path, log: Log, clock: Clock) -> None:
    store = make(tmp_path, log, clock, limit=20_000)
    for _ in range(5):
        for key in (KEY, OTHER):
            assert put(store, key, os.urandom(4000), due=NEVER, view=view(store, log.serial))
        assert store.read(KEY, "json") is not None and store.read(OTHER, "json") is not None
        log.commit(EVERYTHING)
        store.catch_up()


def test_stale_pages_outlive_a_restart(tmp_path: Path, log: Log, clock: Clock) -> None:
    first = make(tmp_path, log, clock, version=1)
    assert put(first, KEY, b"page", due=clock.now + 1, view=view(first, 0))
    clock.now += 1
    assert first.read_stale(KEY, "json") == b"page"
    assert make(tmp_path, log, clock, version=1).read_stale(KEY, "json") == b"page"


def test_the_same_page_is_the_same_file(store: PageStore) -> None:
    """No time of its making in it, that would change an ETag."""
    assert put(store, KEY, b"page", due=NEVER, view=view(store, 0))
    packed = store.read(KEY, "json.gz")
    assert packed is not None and gzip.decompress(packed) == b"page"
    assert packed[4:8] == b"\0\0\0\0"
