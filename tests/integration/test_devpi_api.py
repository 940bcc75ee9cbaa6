"""The API client and the topology against a real devpi-server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from deployer.devpi.api import DevpiApi
from deployer.devpi.change import Change, Kind
from deployer.devpi.converge import apply
from deployer.devpi.declared import wanted
from deployer.devpi.difference import changes, compare
from deployer.devpi.topology import Topology
from deployer.errors import ConflictError, NotReadyError, ServerRefused
from deployer.profile.models import Index, User
from deployer.readiness import wait
from deployer.secrets import Secret
from tests.plain_devpi import PlainDevpi
from tests.scripted_engine import ScriptedEngine
from tests.upstream import Upstream

pytestmark = pytest.mark.server

USERS = {"dev": User(email="dev@example.com")}
INDEXES = {
    # The stage comes first, to show that order in the profile is no matter.
    "root/dev": Index(type="stage", bases=("root/pypi",), volatile=False, acl_upload=("root", ":anonymous:")),
    "root/pypi": Index(type="mirror", title="All that is public"),
    "dev/work": Index(type="stage", bases=("root/dev",), mirror_whitelist=("Some_Project",)),
}


@pytest.fixture
def api(devpi: PlainDevpi) -> Iterator[DevpiApi]:
    with DevpiApi(devpi.url) as client:
        yield client


@pytest.fixture
def root(api: DevpiApi, devpi: PlainDevpi) -> DevpiApi:
    api.login("root", Secret(devpi.password))
    return api


@pytest.fixture
def goal(upstream: Upstream) -> Topology:
    return wanted(USERS, INDEXES, default_mirror_url=upstream.simple_url)


@dataclass
class Seed:
    """Applies changes, and stops after some of them as a killed run would."""

    api: DevpiApi
    done: list[Change] = field(default_factory=list)
    passwords: dict[str, Secret] = field(default_factory=dict)

    def __call__(self, goal: Topology, *, only: int | None = None) -> None:
        apply(
            self.api,
            changes(self.api.topology(), goal)[:only],
            on_change=self.done.append,
            new_password=self._new_password,
        )

    def _new_password(self, user: str) -> Secret:
        return self.passwords.setdefault(user, Secret(f"a fresh secret of {user}"))


def test_tells_who_a_foreign_devpi_is(api: DevpiApi, devpi: PlainDevpi) -> None:
    uuid = (devpi.serverdir / ".nodeinfo").read_text()
    identity = api.identity("ab" * 16)
    assert identity.uuid in uuid
    assert identity.server_version.startswith("6.")


def test_makes_what_the_profile_declares(root: DevpiApi, goal: Topology, upstream: Upstream) -> None:
    seed = Seed(root)
    seed(goal)
    assert [(change.kind, change.target) for change in seed.done] == [
        (Kind.CREATE_USER, "dev"),
        (Kind.CREATE_INDEX, "root/pypi"),
        (Kind.CREATE_INDEX, "root/dev"),
        (Kind.CREATE_INDEX, "dev/work"),
    ]
    now = root.topology()
    assert now.users["dev"].fields == {"email": "dev@example.com"}
    assert now.indexes["root/pypi"].fields == {
        "type": "mirror",
        "title": "All that is public",
        "volatile": True,
        "mirror_url": upstream.simple_url,
        "mirror_no_project_list": True,
    }
    assert now.indexes["root/dev"].fields == {
        "type": "stage",
        "volatile": False,
        "bases": ("root/pypi",),
        "acl_upload": (":ANONYMOUS:", "root"),
        "acl_toxresult_upload": (),
        "mirror_whitelist": (),
        "mirror_whitelist_inheritance": "intersection",
    }
    assert now.indexes["dev/work"].fields["mirror_whitelist"] == ("some-project",)
    assert root.simple_status("root/dev").type == "stage"
    assert root.simple_status("root/pypi").type == "mirror"
    assert upstream.requests == ()


def test_new_user_has_the_stored_password(root: DevpiApi, goal: Topology, devpi: PlainDevpi) -> None:
    seed = Seed(root)
    seed(goal)
    with DevpiApi(devpi.url) as other:
        with pytest.raises(ServerRefused, match="cannot log in as dev"):
            other.login("dev", Secret(""))
        other.login("dev", seed.passwords["dev"])


def test_second_run_asks_once_and_changes_nothing(root: DevpiApi, goal: Topology, devpi: PlainDevpi) -> None:
    Seed(root)(goal)
    before = len(devpi.requests)
    again = Seed(root)
    again(goal)
    assert again.done == []
    assert devpi.requests[before:] == ("GET /",)


@pytest.mark.parametrize("steps", range(5))
def test_half_seeded_server_converges(steps: int, root: DevpiApi, goal: Topology) -> None:
    first, second = Seed(root), Seed(root)
    first(goal, only=steps)
    second(goal)
    assert len(first.done) == steps
    assert len(second.done) == 4 - steps
    assert changes(root.topology(), goal) == ()


def test_only_owned_fields_are_restored(root: DevpiApi, goal: Topology) -> None:
    Seed(root)(goal)
    root.patch_index("root/dev", {"volatile": True, "title": "set by hand"})
    root.patch_index(
        "root/pypi", {"mirror_url": "https://packages.example.com/simple/", "mirror_no_project_list": True}
    )
    steps = changes(root.topology(), goal)
    assert [step.text for step in steps] == ["modify index root/dev: volatile true -> false"]
    Seed(root)(goal)
    now = root.topology().indexes
    assert now["root/dev"].fields["title"] == "set by hand"
    assert now["root/pypi"].fields["mirror_url"] == "https://packages.example.com/simple/"


def test_index_that_the_profile_dropped_is_kept(root: DevpiApi, goal: Topology, upstream: Upstream) -> None:
    Seed(root)(goal)
    indexes = {name: index for name, index in INDEXES.items() if name != "dev/work"}
    less = wanted({}, indexes, default_mirror_url=upstream.simple_url)
    kept = [change.target for change in compare(root.topology(), less) if change.kind is Kind.KEPT]
    assert kept == ["dev", "dev/work"]
    assert changes(root.topology(), less) == ()


def test_index_of_another_type_is_a_conflict(root: DevpiApi, goal: Topology, upstream: Upstream) -> None:
    root.put_index("root/dev", {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True})
    with pytest.raises(ConflictError, match="root/dev is of type mirror"):
        Seed(root)(goal)
    assert list(root.topology().indexes) == ["root/dev"]


def test_every_base_must_exist(root: DevpiApi) -> None:
    with pytest.raises(ServerRefused, match="base index 'root/none' does not exist"):
        root.put_index("root/dev", {"type": "stage", "bases": ("root/none",)})


def test_wrong_password_is_refused_with_the_cure(api: DevpiApi) -> None:
    with pytest.raises(ServerRefused, match="cannot log in as root") as caught:
        api.login("root", Secret("not the password"))
    assert caught.value.hint == "give the right one: deployer secret set root"


def test_without_a_login_nothing_is_made(api: DevpiApi) -> None:
    with pytest.raises(ServerRefused, match="HTTP 403"):
        api.put_user("eve", {}, password=Secret("of no use to her"))
    assert set(api.topology().users) == {"root"}


def test_login_that_expired_is_renewed_once(root: DevpiApi, devpi: PlainDevpi) -> None:
    root.identity()
    root.put_index("root/one", {"type": "stage"})
    devpi.stop()
    devpi.new_secret()  # to a client just as ten hours that went by
    devpi.start()
    before = len(devpi.requests)
    root.put_index("root/two", {"type": "stage"})
    root.put_index("root/three", {"type": "stage"})
    assert set(root.topology().indexes) == {"root/one", "root/two", "root/three"}
    assert devpi.requests[before:].count("POST /+login") == 1


def test_missing_right_is_no_reason_to_log_in_again(root: DevpiApi, goal: Topology, devpi: PlainDevpi) -> None:
    seed = Seed(root)
    seed(goal)
    with DevpiApi(devpi.url) as other:
        other.login("dev", seed.passwords["dev"])
        before = len(devpi.requests)
        with pytest.raises(ServerRefused, match="HTTP 403"):
            other.patch_index("root/dev", {"title": "not mine"})
    assert "POST /+login" not in devpi.requests[before:]


def test_changed_password_is_used_from_then_on(root: DevpiApi, devpi: PlainDevpi) -> None:
    root.set_password("root", Secret("another password"))
    root.put_index("root/dev", {"type": "stage"})
    with DevpiApi(devpi.url) as other:
        other.login("root", Secret("another password"))
        with pytest.raises(ServerRefused, match="cannot log in"):
            other.login("root", Secret(devpi.password))


def test_deletes_a_volatile_index_only(root: DevpiApi) -> None:
    root.put_index("root/gone", {"type": "stage", "volatile": True})
    root.put_index("root/stays", {"type": "stage", "volatile": False})
    root.delete_index("root/gone")
    with pytest.raises(ServerRefused, match="non-volatile"):
        root.delete_index("root/stays")
    assert set(root.topology().indexes) == {"root/stays"}


def _wait(devpi: PlainDevpi, **changed: object) -> list[str]:
    stages: list[str] = []
    arguments = {
        "url": devpi.url,
        "engine": ScriptedEngine().as_engine(),
        "name": "devpi",
        "expected_uuid": lambda: None,
        "proof_key": lambda: None,
        "credentials": None,
        "index": None,
        "deadline": timedelta(seconds=180),
        "on_stage": lambda stage, seconds: stages.append(stage),
    } | changed
    wait(**arguments).api.close()  # type: ignore[arg-type]
    return stages


def _uuid(devpi: PlainDevpi) -> str:
    with DevpiApi(devpi.url) as api:
        return api.identity().uuid


def test_wait_from_launch_to_index(devpi_stopped: PlainDevpi) -> None:

    devpi_stopped.launch()
    stages = _wait(
        devpi_stopped,
        expected_uuid=lambda: json.loads((devpi_stopped.serverdir / ".nodeinfo").read_text())["uuid"],
        credentials=lambda: Secret(devpi_stopped.password),
    )
    assert stages == ["process", "port", "api", "ours", "login"]
    assert "POST /+login" in devpi_stopped.requests


def test_wait_never_sends_a_password_to_another_devpi(devpi: PlainDevpi) -> None:
    with pytest.raises(ConflictError, match="another devpi answers"):
        _wait(devpi, expected_uuid=lambda: "0" * 32, credentials=lambda: Secret(devpi.password))
    assert "POST /+login" not in devpi.requests


def test_wait_tells_a_wrong_password(devpi: PlainDevpi) -> None:
    uuid = _uuid(devpi)
    with pytest.raises(ServerRefused, match="cannot log in as root"):
        _wait(devpi, expected_uuid=lambda: uuid, credentials=lambda: Secret("changed by hand"))


def test_wait_tells_a_frozen_server(devpi: PlainDevpi) -> None:
    assert devpi.process is not None
    os.kill(devpi.process.pid, signal.SIGSTOP)
    with pytest.raises(NotReadyError, match=r"accepts connections but does not answer.* at stage api"):
        _wait(devpi, deadline=timedelta(seconds=4))
