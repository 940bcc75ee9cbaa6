"""What devpi's notifier is spared: one look at an index for each commit, and each event of one that takes uploads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

pytest.importorskip("devpi_server")

from devpi_server import hookspecs
from devpi_server.model import EventSubscribers

from deployer.server.devpi.file_events import SUBSCRIBER, SkipMirrors, skip_mirrors
from deployer.server.devpi.installed import inside

TYPES = {"pypi": "mirror", "dev": "stage"}


hookimpl = pluggy.HookimplMarker("devpiserver")


class Listener:
    @hookimpl
    def devpiserver_on_upload(self) -> None: ...


class Xom:
    """As much of devpi's as a subscriber sees: which index was looked up, as of which serial."""

    def __init__(self, *plugins: object) -> None:
        self.looked: list[tuple[int, str]] = []
        manager = pluggy.PluginManager("devpiserver")
        manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            manager.register(plugin)
        self.config = SimpleNamespace(hook=manager.hook)
        self.keyfs: Any = SimpleNamespace(notifier=SimpleNamespace(_on_key_change={}), read_transaction=self._at)
        self.model = SimpleNamespace(getstage=self._stage)
        self._serial = -1

    @contextmanager
    def _at(self, *, at_serial: int) -> Iterator[None]:
        self._serial = at_serial
        yield

    def _stage(self, user: str, index: str) -> Any:
        self.looked.append((self._serial, f"{user}/{index}"))
        return SimpleNamespace(ixconfig={"type": TYPES[index]}) if index in TYPES else None


def event(serial: int, index: str) -> Any:
    return SimpleNamespace(at_serial=serial, typedkey=SimpleNamespace(params={"user": "root", "index": index}))


def test_a_mirror_is_looked_at_once_a_commit_and_uploads_are_all_told() -> None:
    xom, told = Xom(), []
    sparing = SkipMirrors(xom, told.append)
    for serial in (1, 2):
        for _ in range(1000):
            sparing(event(serial, "pypi"))
    assert (told, xom.looked) == ([], [(1, "root/pypi"), (2, "root/pypi")])
    uploads = [event(3, "dev"), event(3, "dev"), event(3, "pypi"), event(3, "dev"), event(4, "gone")]
    for one in uploads:
        sparing(one)
    assert told == [one for one in uploads if one.typedkey.params["index"] != "pypi"]


def test_devpi_still_has_what_is_spared() -> None:
    """Else a new version of it is as slow as it was, and nobody notices."""
    xom = Xom(Listener())
    own = getattr(EventSubscribers(xom), SUBSCRIBER)
    others = [print]
    xom.keyfs.notifier._on_key_change = {inside().FILE: [own, *others], "USER": [own]}
    skip_mirrors(xom)
    spared, *rest = xom.keyfs.notifier._on_key_change[inside().FILE]
    assert isinstance(spared, SkipMirrors)
    assert rest == others
    assert xom.keyfs.notifier._on_key_change["USER"] == [own]


def test_where_no_plugin_listens_devpi_does_not_even_look() -> None:
    xom = Xom()
    others = [print]
    xom.keyfs.notifier._on_key_change = {inside().FILE: [getattr(EventSubscribers(xom), SUBSCRIBER), *others]}
    skip_mirrors(xom)
    assert xom.keyfs.notifier._on_key_change[inside().FILE] == others


def test_another_notifier_is_left_alone() -> None:
    xom = Xom()
    xom.keyfs.notifier = SimpleNamespace()
    skip_mirrors(xom)
