"""Which pages a commit invalidates, by the kinds of keys that devpi's changelog names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from devpi_server.model import add_keys

from deployer.server.devpi.installed import installed
from deployer.server.pages.changelog import EVERYTHING, Changelog, Touched

pytestmark = pytest.mark.skipif(installed().major != "6", reason="kinds of keys of devpi-server 6; of 7: test_server_7")


class Connection:
    """One commit, as devpi's storage returns it."""

    def __init__(self, changes: dict[str, tuple[str, int, Any]]) -> None:
        self.changes = changes

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_changes(self, serial: int) -> dict[str, tuple[str, int, Any]]:
        return self.changes


class Keyfs:
    def __init__(self, kind: str, path: str, value: Any) -> None:
        self.connection = Connection({path: (kind, -1, value)})

    def get_connection(self) -> Connection:
        return self.connection

    def get_key(self, kind: str) -> Any:
        from devpi_server.keyfs_types import PTypedKey

        paths = {"PROJSIMPLELINKS": "{user}/{index}/{project}/.simple", "PROJVERSIONS": "{user}/{index}/{project}/.v"}
        return PTypedKey(self, paths[kind], dict, kind)  # type: ignore[arg-type]


def touched(
    kind: str, path: str = "root/pypi/some-name/.x", value: Any = None, *, offline: bool = False
) -> set[Touched]:
    log = Changelog(Keyfs(kind, path, value), offline=offline)
    ((serial, found),) = log.since(0, 1)
    assert serial == 1
    return found


@pytest.mark.parametrize("kind", ["USER", "PROJSIMPLELINKS2", "SOMETHING", ""])
def test_users_and_unknown_kinds_of_keys_invalidate_every_page(kind: str) -> None:
    """A devpi that renames a key must not have stale pages served."""
    assert touched(kind) == {EVERYTHING}


def test_a_page_invalidates_its_project_on_every_index() -> None:
    assert touched("PROJSIMPLELINKS", "root/pypi/some.name/.simple") == {"some-name"}


@pytest.mark.parametrize("kind", ["USERLIST", "MIRRORNAMESINIT"])
def test_some_kinds_belong_to_no_page(kind: str) -> None:
    assert touched(kind) == set()


@pytest.mark.parametrize("kind", ["STAGEFILE", "PYPIFILE_NOMD5"])
def test_files_change_pages_only_offline(kind: str) -> None:
    entry = {"project": "Some_Name"}
    assert touched(kind, value=entry) == set()
    assert touched(kind, value=entry, offline=True) == {"some-name"}
    assert touched(kind, value={"hash": "of no project"}, offline=True) == {EVERYTHING}


def test_every_kind_of_the_installed_devpi_is_known() -> None:
    """Else each commit of one would cost every page."""
    kinds: list[str] = []
    keyfs: Any = SimpleNamespace(add_key=lambda name, *_: kinds.append(name))
    for name in ("PROJVERSION", "STAGEFILE", "MIRRORNAMESINIT", "USER"):
        setattr(keyfs, name, SimpleNamespace(on_key_change=lambda subscriber: None))
    add_keys(SimpleNamespace(), keyfs)  # type: ignore[arg-type]
    from deployer.server.devpi import version6

    assert set(kinds) == {"USER", "PROJNAMES", *version6._OF_ONE_PROJECT, *version6._FILES, *version6._OF_NO_PAGE}
