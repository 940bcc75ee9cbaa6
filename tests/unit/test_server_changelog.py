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


USER = {"indexes": {"pypi": {"type": "mirror"}, "dev": {"type": "stage"}}}


class Connection:
    """One commit, as devpi's storage returns it, in a database with the indexes of root."""

    def __init__(self, changes: dict[str, tuple[str, int, Any]]) -> None:
        self.changes = changes
        self.values: dict[str, Any] = {"root/.config": USER}

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_changes(self, serial: int) -> dict[str, tuple[str, int, Any]]:
        return self.changes

    def db_read_last_changelog_serial(self) -> int:
        return 1

    def get_relpath_at(self, relpath: str, serial: int) -> tuple[int, int, Any]:
        return serial, -1, self.values[relpath]


class Keyfs:
    def __init__(self, kind: str, path: str, value: Any) -> None:
        self.connection = Connection({path: (kind, -1, value)})

    @staticmethod
    def USER(user: str) -> Any:  # noqa: N802 - devpi's name
        return SimpleNamespace(relpath=f"{user}/.config")

    def get_connection(self) -> Connection:
        return self.connection

    def get_key(self, kind: str) -> Any:
        from devpi_server.keyfs_types import PTypedKey

        paths = {
            "PROJNAMES": "{user}/{index}/.projects",
            "PROJSIMPLELINKS": "{user}/{index}/{project}/.simple",
            "PROJVERSION": "{user}/{index}/{project}/{version}/.config",
            "PROJVERSIONS": "{user}/{index}/{project}/.v",
        }
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


OF_ONE_PROJECT = [
    ("PROJSIMPLELINKS", "{}/some.name/.simple", None),
    ("PROJVERSIONS", "{}/some.name/.v", None),
    ("PROJVERSION", "{}/some.name/1.0/.config", None),
    ("PROJNAMES", "{}/.projects", {"some.name"}),
]


@pytest.mark.parametrize(("kind", "path", "value"), OF_ONE_PROJECT)
@pytest.mark.parametrize("index", ["root/dev", "root/deleted", "gone/dev"])
def test_an_upload_invalidates_its_project_on_every_index(kind: str, path: str, value: Any, index: str) -> None:
    """So does what can't be told from one, because its index is no more."""
    assert touched(kind, path.format(index), value) == {"some-name"}


@pytest.mark.parametrize(("kind", "path", "value"), OF_ONE_PROJECT)
def test_what_devpi_stores_of_a_mirror_changes_no_page(kind: str, path: str, value: Any) -> None:
    """Its pages are its upstream's, and not made of devpi's links, as long as upstreams may be asked."""
    assert touched(kind, path.format("root/pypi"), value) == set()


@pytest.mark.parametrize(("kind", "path", "value"), OF_ONE_PROJECT[:3])
def test_offline_it_does(kind: str, path: str, value: Any) -> None:
    assert touched(kind, path.format("root/pypi"), value, offline=True) == {"some-name"}


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

    assert set(kinds) == {"USER", "PROJNAMES", *version6._OF_ONE_PROJECT, *version6.FILES, *version6._OF_NO_PAGE}
