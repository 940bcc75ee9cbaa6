"""What is replaced and relied on in devpi's code: all of it is documented, and a devpi that lacks it is refused."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from deployer.protocol import ExitCode, Refusal
from deployer.server.devpi import relied_on, replacements
from deployer.server.devpi.installed import installed, server_version
from deployer.server.devpi.relied_on import Reliance
from tests.replaced import documented, relied_on_as_documented, replaced
from tests.views import documented as documented_views
from tests.views import views

pytestmark = pytest.mark.skipif(installed().major != "6", reason="names of devpi-server 6; of 7: test_server_7")


def test_what_is_documented_is_all() -> None:
    assert replaced(sys.executable) == documented("6")


def test_what_is_replaced_is_relied_on() -> None:
    names = {f"{reliance.module.rpartition('.')[2]}.{reliance.path}" for reliance in relied_on.table(web=True)}
    assert {name for name in documented("6") if not any(known.endswith(name) for known in names)} == set()


def test_what_is_relied_on_is_documented() -> None:
    tables = {
        "6": relied_on.OF_6,
        "7": relied_on.OF_7,
        "both": (*relied_on.BOTH, *relied_on.OF_LDAP, *relied_on.OF_TOKENS, *relied_on.OF_WEB),
    }
    assert {
        kind: {reliance.module for reliance in table} for kind, table in tables.items()
    } == relied_on_as_documented()


def test_the_installed_devpi_has_it_all() -> None:
    relied_on.check(web=True)


def test_every_view_has_a_row() -> None:
    found = views(sys.executable)
    assert documented_views() - found == {"PATCH /{user}/{index}/{project}"}  # devpi-server 7 only
    assert found - documented_views() == set()


def holders(reliance: Reliance) -> tuple[list[Any], str]:
    """The module, or the class and its bases, that may hold the last name of ``reliance``; and that name."""
    *outer, name = reliance.path.split(".")
    found: Any = import_module(reliance.module)
    for holder in outer:
        found = inspect.getattr_static(found, holder)
    return list(found.__mro__ if inspect.isclass(found) else (found,)), name


@pytest.mark.parametrize(
    "reliance",
    [one for one in relied_on.table(web=True) if not one.path.endswith("__init__")],
    ids=lambda reliance: f"{reliance.module}:{reliance.path}",
)
def test_a_devpi_without_it_is_refused_by_name(reliance: Reliance, monkeypatch: pytest.MonkeyPatch) -> None:
    found, name = holders(reliance)
    for holder in found:
        monkeypatch.delitem(vars(holder).get("__annotations__", {}), name, raising=False)
        if name in vars(holder):
            monkeypatch.delattr(holder, name)
    before = vars(import_module("devpi_server.auth")).get("pwd_context")
    with pytest.raises(Refusal) as caught:
        replacements.install(lambda url: None, web=True)
    assert caught.value.message == f"unsupported devpi-server {server_version()}: {reliance.path} not found"
    assert caught.value.code == ExitCode.REFUSED
    assert vars(import_module("devpi_server.auth")).get("pwd_context") is before  # nothing was replaced


@pytest.mark.parametrize(
    "reliance", [one for one in relied_on.table(web=True) if one.words], ids=lambda reliance: reliance.path
)
def test_a_renamed_singleton_attribute_or_key_is_seen(reliance: Reliance) -> None:
    assert not reliance.missing
    for word in reliance.words:
        renamed = Reliance(reliance.module, reliance.path, (f"{word}_renamed",))
        assert renamed.missing == f"{reliance.path}: {word}_renamed"


def test_a_module_that_is_gone_is_seen() -> None:
    assert Reliance("devpi_server.no_such_module", "name").missing == "devpi_server.no_such_module"
