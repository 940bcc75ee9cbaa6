"""Sets of data change places by renames: whichever step is cut short, the next run ends where this one was to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.protocol import PRIVATE, Refusal, UpgradePath
from deployer.server.boot import prepare
from deployer.server.devpi import stored
from deployer.server.upgrade import sets

OLD = {".nodeinfo": '{"uuid": "old"}', ".serverversion": "4", ".sqlite": "6", "+files/root/dev/a": "a"}
NEW = {".nodeinfo": '{"uuid": "new"}', ".serverversion": "5", ".sqlite_alchemy": "7", "+files/root/dev/a": "a"}
OWN = {f"{PRIVATE}/secret": "s", f"{PRIVATE}/upstream/root/pypi/demo": "page"}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def content(directory: Path) -> dict[str, str]:
    """All files of a set, without what is deployer's own."""
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if not name.startswith(PRIVATE)}


@pytest.fixture
def serverdir(tmp_path: Path) -> Path:
    write(tmp_path, OLD | OWN)
    write(sets.next_of(tmp_path), NEW | {f"{PRIVATE}/secret": "of the proof"})
    return tmp_path


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[list[int]]:
    """End the run before its n-th change of the disk."""
    done = [0]

    def counted(call: object) -> object:
        def one(*args: object, **kwargs: object) -> object:
            done[0] += 1
            if done[0] == step:
                raise Killed
            return call(*args, **kwargs)  # type: ignore[operator]

        return one

    with monkeypatch.context() as patched:
        for place, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (sets.shutil, "rmtree")):
            patched.setattr(place, name, counted(getattr(place, name)))
        for name in ("write_private", "remove"):
            patched.setattr(sets, name, counted(getattr(sets, name)))
        yield done


def test_a_switch_that_is_killed_at_any_step_is_finished(serverdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 0
    while True:
        step += 1
        with killed_at(monkeypatch, step) as done, contextlib.suppress(Killed):
            sets.switch(serverdir, sets.next_of(serverdir), server_version="6")
        begun = sets.unfinished(serverdir)
        if begun:
            with pytest.raises(Refusal, match="interrupted"), prepare.locked(serverdir):
                pass
        if begun or done[0] >= step:
            sets.resume(serverdir)
        present = content(serverdir)
        if present == OLD:  # it was killed before anything moved
            assert sets.kept(serverdir) == []
            assert content(sets.next_of(serverdir)) == NEW
            continue
        assert present == NEW
        (about,) = sets.kept(serverdir)
        kept = serverdir / UpgradePath.FORMER / about.name
        assert {name: text for name, text in content(kept).items() if name != sets.ABOUT} == OLD
        assert (about.layout, about.uuid, about.left) == ("4", "old", False)
        assert not sets.next_of(serverdir).exists()
        assert (serverdir / PRIVATE / "secret").read_text() == "s"
        if done[0] < step:
            break  # it ran to its end
        sets.switch(serverdir, kept, left=True, server_version="7")  # back, and once more
        assert content(serverdir) == OLD
        (left,) = sets.kept(serverdir)
        assert left.left
        (serverdir / UpgradePath.FORMER / left.name).rename(sets.next_of(serverdir))
        (sets.next_of(serverdir) / sets.ABOUT).unlink()
    assert step > 10


def test_a_set_without_its_description_is_none_and_is_cleared(serverdir: Path) -> None:
    made = sets.reserve(serverdir)
    write(made, {".sqlite": "half"})
    assert sets.kept(serverdir) == []
    again = sets.reserve(serverdir)
    assert (again.name, list(again.iterdir())) == (made.name, [])


def test_a_damaged_journal_is_refused(serverdir: Path) -> None:
    (serverdir / UpgradePath.SWITCH).write_text("{")
    with pytest.raises(Refusal, match="is damaged"):
        sets.resume(serverdir)


def test_the_last_set_of_each_kind_is_kept(serverdir: Path) -> None:
    for left in (False, True, False, True, False):
        made = sets.reserve(serverdir)
        write(made, OLD)
        sets.describe(made, server_version="6", left=left)
    assert sets.prune(serverdir) == ["001", "002", "003"]
    assert [(about.name, about.left) for about in sets.kept(serverdir)] == [("004", True), ("005", False)]
    assert stored.former_bytes(serverdir) == 2
    assert sets.prune(serverdir) == []
    assert sets.reserve(serverdir).name == "006"


def test_there_may_be_no_sets(serverdir: Path) -> None:
    assert (sets.prune(serverdir), stored.former_bytes(serverdir)) == ([], 0)
