"""Data of the last ``up`` that is gone: no verb begins a new index in its place, unless the user insists."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deployer.deployment.find import Deployment
from deployer.deployment.record import Applied
from deployer.errors import ConflictError, Refused
from deployer.host.gather import data_facts, mark_used, used_by
from deployer.operations import move, start
from deployer.operations.apply import make_data
from deployer.operations.recorded import recorded
from deployer.plan.data import DataPlan, check_kept, check_place, check_strangers, check_volume_kept, plan_data
from deployer.plan.facts import Content, Recorded, Usage
from deployer.profile.models import Profile
from deployer.protocol import PrivateFile
from deployer.spec import LABEL_NAME, LABEL_USER, Container, Mount, State, Volume
from deployer.ui.output import UI
from tests.client_place import NOBODY, as_root
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import FACTS, make, refuse, with_data

UUID, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    (path / ".nodeinfo").write_text(json.dumps({"uuid": UUID}))
    return path


def kept(path: Path, *, uuid: str = UUID) -> Recorded:
    return Recorded(source=str(path), uuid=uuid)


def applied(path: Path, *, choice: str = "", uuid: str = UUID) -> Applied:
    return Applied(
        profile_name="default",
        profile_ref="default",
        engine="docker",
        simple_url="",
        profile={"data": choice or str(path)},
        data_source=str(path),
        data_uuid=uuid,
    )


def gone(path: Path, how: str) -> None:
    for file in path.iterdir():
        file.unlink()
    if how == "absent":
        path.rmdir()
    if how == "lost+found":
        (path / "lost+found").mkdir()
    if how == "bare":
        mark_used(path, Usage(name="devpi", state="/state", uid=os.geteuid()))


GONE = ["absent", "empty", "lost+found", "bare"]


# What is gone


@pytest.mark.parametrize("how", GONE)
def test_data_that_is_gone_is_not_begun_anew(data: Path, how: str) -> None:
    gone(data, how)
    with pytest.raises(ConflictError, match=f"gone from {data}") as caught:
        check_kept(kept(data), data_facts(data))
    assert "--new-data" in caught.value.hint and UUID in caught.value.message


def test_other_data_in_its_place_is_told(data: Path) -> None:
    with pytest.raises(ConflictError, match=f"holds the index {UUID}, and this deployment had {OTHER}"):
        check_kept(kept(data, uuid=OTHER), data_facts(data))


@pytest.mark.parametrize("how", ["other", *GONE])
def test_an_upgrade_that_was_killed_is_gone_on_with(data: Path, how: str) -> None:
    if how != "other":
        gone(data, how)
    with pytest.raises(ConflictError, match="upgrade to devpi-server 7 was interrupted") as caught:
        check_kept(replace(kept(data, uuid=OTHER), upgrading="7", former=OTHER), data_facts(data))
    assert "deployer upgrade --to 7" in caught.value.hint and "--new-data" not in caught.value.hint


def test_a_rollback_that_was_killed_is_gone_on_with(data: Path) -> None:
    with pytest.raises(ConflictError, match="rollback was interrupted") as caught:
        check_kept(replace(kept(data, uuid=OTHER), former=UUID), data_facts(data))
    assert caught.value.hint == "run deployer rollback"
    with pytest.raises(ConflictError, match=f"this deployment had {OTHER}"):
        check_kept(replace(kept(data, uuid=OTHER), former="another"), data_facts(data))


def test_data_that_is_there_is_fine(data: Path, tmp_path: Path) -> None:
    check_kept(kept(data), data_facts(data))
    check_kept(None, data_facts(data))
    check_kept(kept(tmp_path / "elsewhere"), data_facts(data))


def test_data_whose_identity_cannot_be_read_is_not_gone(data: Path) -> None:
    (data / ".nodeinfo").write_text("{")
    check_kept(kept(data), data_facts(data))  # the server itself refuses it
    check_kept(kept(data), replace(data_facts(data), content=Content.UNREADABLE, bare=False, uuid=""))


def test_the_plan_refuses_and_a_new_index_is_insisted_on() -> None:
    assert FACTS.data is not None
    facts = replace(FACTS, recorded=kept(FACTS.data.path))
    assert "is gone" in refuse(ConflictError, facts=facts).message
    assert make(facts=replace(facts, recorded=None)).data.begin


def test_a_volume_that_is_gone() -> None:
    check_volume_kept(kept(Path("v")), "v", absent=False)
    check_volume_kept(kept(Path("v")), "other", absent=True)
    check_volume_kept(None, "v", absent=True)
    with pytest.raises(ConflictError, match="the volume v of this deployment is gone"):
        check_volume_kept(kept(Path("v")), "v", absent=True)


def test_what_is_on_record() -> None:
    path = Path("/srv/devpi")
    assert recorded(applied(path)) == kept(path)
    assert recorded(None) is None
    assert recorded(applied(path, uuid="")) is None  # of an older deployer
    assert recorded(applied(path, choice="temp")) is None  # it is thrown away


def test_a_deployment_that_is_there_keeps_its_place() -> None:
    held = Container(
        id="1",
        name="devpi",
        state=State.STOPPED,
        image="i",
        mounts=(Mount(kind="bind", source="/srv/one", target="/data"),),
    )
    check_place(held, DataPlan(kind="bind", source="/srv/one"), choice="/srv/one")
    with pytest.raises(Refused, match="keeps its data in /srv/one"):
        check_place(held, DataPlan(kind="bind", source="/srv/two"), choice="/srv/two")


# Verbs that start a server


def deployment(data: Path, *, uuid: str = UUID) -> Deployment:
    engine = FakeEngine()
    held = Container(
        id="1",
        name="devpi",
        state=State.STOPPED,
        image="i",
        labels={LABEL_NAME: "devpi"},
        mounts=(Mount(kind="bind", source=str(data), target="/data"),),
    )
    engine.held["devpi"] = held
    return Deployment(name="devpi", engine=engine, container=held, applied=applied(data, uuid=uuid))


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("verb", [start.start, start.restart])
def test_no_server_starts_where_it_is_gone(
    data: Path, how: str, verb: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    gone(data, how)
    there = deployment(data)
    monkeypatch.setattr(start, "require", lambda *_, **__: there)
    with pytest.raises(ConflictError, match="is gone from"):
        verb("devpi", engine="", lock_wait=0.0, deadline=timedelta(seconds=1), ui=UI(quiet=True))  # type: ignore[operator]
    assert there.engine.inspect("devpi") == there.container


@pytest.mark.parametrize("how", GONE)
def test_nothing_is_moved_from_where_it_is_gone(data: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone(data, how)
    there = deployment(data)
    monkeypatch.setattr(move, "require", lambda *_, **__: there)
    with pytest.raises(ConflictError, match="is gone from"):
        move.move("default", "devpi", overrides=(), ui=UI(quiet=True))


# What root restored


@as_root
@pytest.mark.parametrize("file", [".nodeinfo", ".deployer", ".deployer/lock"])
def test_files_of_another_owner_are_refused_with_the_cure(data: Path, file: str) -> None:
    (data / ".deployer").mkdir()
    (data / ".deployer/lock").touch()
    for path in (data, *data.rglob("*")):
        os.chown(path, NOBODY, -1)
    check_strangers(data_facts(data), uid=NOBODY, gid=7)
    os.chown(data / file, 0, -1)
    with pytest.raises(ConflictError, match=f"{file} belongs to uid 0, and the server runs as uid {NOBODY}") as caught:
        check_strangers(data_facts(data), uid=NOBODY, gid=7)
    assert caught.value.hint == f"sudo chown -R {NOBODY}:7 {data}"


# Directories inside each other


def test_a_directory_inside_another_servers_is_refused(data: Path) -> None:
    facts = data_facts(data / "a" / "inner")
    assert facts.within == data
    error = refuse(Refused, facts=replace(FACTS, data=facts))
    assert f"is inside {data}, the data directory of another server" in error.message


# Marks


@pytest.mark.parametrize(
    "text", ["", "{", "null", '{"name": "devpi", "state": "/s"}', '{"name": 1, "state": "/s", "uid": 0}', "[" * 99_999]
)
def test_a_damaged_mark_of_use_is_none(data: Path, text: str) -> None:
    mark_used(data, Usage(name="devpi", state="/s", uid=0))
    assert used_by(data) == Usage(name="devpi", state="/s", uid=0)
    (data / PrivateFile.USED_BY.relative).write_text(text)
    assert used_by(data) is None


def test_only_our_own_server_needs_a_mark_to_begin() -> None:
    facts = with_data()
    assert plan_data(Profile(), facts).mark
    assert not plan_data(Profile(), facts, moving=True).mark  # a copy comes there
    assert not plan_data(Profile.model_validate({"image": {"ref": "example/devpi:6"}}), facts).mark


# Volumes


def test_a_volume_is_made_with_our_labels_and_goes_with_a_failure() -> None:
    engine = FakeEngine()
    with ExitStack() as rollback:
        make_data("devpi", DataPlan(kind="volume", source="v", create=True), engine, rollback)
        assert engine.volumes["v"].labels == {LABEL_NAME: "devpi", LABEL_USER: str(os.geteuid())}
    assert engine.volumes == {}


def test_a_volume_that_was_there_outlasts_a_failure() -> None:
    engine = FakeEngine(volumes={"v": Volume(name="v")})
    with ExitStack() as rollback:
        make_data("devpi", DataPlan(kind="volume", source="v"), engine, rollback)
    assert set(engine.volumes) == {"v"}
