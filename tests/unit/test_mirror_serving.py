"""Who serves a project: asked for in a transaction, and remembered until a commit may change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.server.mirrors import serving
from deployer.server.mirrors.serving import Serving


class Stage:
    """An index as devpi has it. ``uploaded``: the projects of an index with uploads."""

    keyfs = SimpleNamespace(tx=SimpleNamespace())

    def __init__(self, name: str, kind: str, uploaded: set[str], bases: tuple[Stage, ...] = ()) -> None:
        self.name, self.ixconfig, self.uploaded, self._bases = name, {"type": kind}, uploaded, bases

    def sro(self) -> Iterator[Stage]:
        yield self
        yield from self._bases

    def list_projects_perstage(self) -> set[str]:
        return self.uploaded

    def has_project_perstage(self, project: str) -> bool:
        return project in self.uploaded


class Bench:
    """Two indexes and a database whose transactions are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str = "stage", *, plugin: bool = False) -> None:
        inside = SimpleNamespace(
            is_mirror=lambda stage: stage.ixconfig["type"] == "mirror",
            serving=lambda stage, project, walk: list(stage.sro()),
            uploaded=lambda stages: frozenset().union(*(stage.list_projects_perstage() for stage in stages)),
        )
        monkeypatch.setattr(serving, "inside", lambda: inside)
        monkeypatch.setattr(serving, "installed", lambda: SimpleNamespace(mirror="mirror", stage="stage"))
        mirror = Stage("root/pypi", "mirror", set())
        self.dev = Stage("root/dev", kind, {"mine"}, (mirror,))
        self.stages = {"root/dev": self.dev, "root/pypi": mirror}
        self.serial, self.transactions = 7, 0
        self.changes: dict[str, int] = {}
        hook = SimpleNamespace(devpiserver_sro_skip=SimpleNamespace(get_hookimpls=lambda: [1] * plugin))
        xom: Any = SimpleNamespace(
            keyfs=SimpleNamespace(read_transaction=self._transaction),
            model=SimpleNamespace(getstage=self.stages.get),
            config=SimpleNamespace(hook=hook),
        )
        unused: Any = None
        self.serving = Serving(xom, unused, unused, unused, lambda project: self.changes.get(project, 0))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        self.transactions += 1
        yield SimpleNamespace(at_serial=self.serial)

    def decided(self, project: str, index: str = "root/dev") -> tuple[int, list[str] | None]:
        first, names = self.serving._decided(index, project)
        return first, None if names is None else list(names)


def test_one_transaction_decides_for_all_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    assert bench.decided("demo") == (7, ["root/pypi"])
    bench.serial = 9  # commits that touched neither
    assert [bench.decided("other"), bench.decided("mine")] == [(7, ["root/pypi"]), (7, None)]
    assert bench.transactions == 1


def test_an_upload_is_seen_when_its_commit_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.decided("demo")
    bench.dev.uploaded.add("demo")
    bench.serial = bench.changes["demo"] = 8
    assert bench.decided("demo") == (8, None)
    assert bench.decided("other") == (8, ["root/pypi"])
    bench.dev.uploaded.discard("demo")
    bench.serial = bench.changes["demo"] = 9
    assert bench.decided("demo") == (9, ["root/pypi"])


@pytest.mark.parametrize(("kind", "plugin"), [("ordered", False), ("stage", True), ("constrained", False)])
def test_where_more_decides_each_project_is_asked_for(kind: str, plugin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, kind, plugin=plugin)
    for project in ("demo", "other"):
        bench.decided(project)
    assert bench.transactions == 2


def test_an_index_that_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.decided("demo")
    del bench.stages["root/dev"]
    bench.serial = 8
    bench.changes = dict.fromkeys(("demo", "other"), 8)
    assert [bench.decided("demo"), bench.decided("other")] == [(8, None), (8, None)]
