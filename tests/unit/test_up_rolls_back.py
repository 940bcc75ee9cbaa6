"""What ``up`` leaves when it fails, on an engine in memory: what ran runs again, and ``--keep`` keeps the rest."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from deployer.deployment.lock import hold
from deployer.deployment.record import Applied, Overridden, read_applied
from deployer.devpi.change import Change
from deployer.devpi.identity import Identity
from deployer.engines import Detection
from deployer.errors import (
    ConflictError,
    DeployerError,
    EngineError,
    Locked,
    NotReadyError,
    Refused,
    ServerRefused,
    VerificationError,
)
from deployer.host.gather import used_by
from deployer.operations import start, up
from deployer.operations.prepare import Prepared
from deployer.plan.facts import Content, DataFacts, Facts, Usage
from deployer.profile.load import Loaded
from deployer.profile.load.overrides import Override
from deployer.profile.models import Image as ImageModel
from deployer.profile.models import Network, Profile, Server
from deployer.readiness import Ready
from deployer.secrets import Secret
from deployer.spec import LABEL_BUILD, LABEL_NAME, PREVIOUS, Container, EngineInfo, Image, State
from deployer.ui.output import UI
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import FACTS, make

BUILT = Image(id="sha256:1", ref=FACTS.image_ref, names=(FACTS.image_ref,), labels={LABEL_BUILD: FACTS.image_build})
OVERRIDE = Override(key="server.web", value="off", source="--set")
BRIDGE = Network(mode="bridge")
"""Nothing is measured."""
FAILURES = [NotReadyError("no", hint="h"), Refused("no", hint="h"), ServerRefused("no", hint="h"), KeyboardInterrupt()]


class Api:
    """A connection that is never used."""

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def ready(version: str = "6.20.3") -> Ready:
    return Ready(timings={}, api=Api(), identity=Identity(uuid="u", server_version=version))  # type: ignore[arg-type]


@dataclass
class World:
    """A host with one engine and one deployment, where the wait for the server ends as told."""

    engine: FakeEngine
    data: Path
    profile: Profile = field(default_factory=lambda: Profile(network=BRIDGE))
    waited: list[str] = field(default_factory=list)
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = field(default_factory=list)
    seeded: list[dict[str, object]] = field(default_factory=list)

    @property
    def current(self) -> Container | None:
        return self.engine.held.get("devpi")

    @property
    def facts(self) -> Facts:
        there = self.data.is_dir()
        above = next(path for path in self.data.parents if path.is_dir())
        owner = (self.data if there else above).stat()
        data = DataFacts(
            path=self.data,
            content=Content.DEVPI if there else Content.ABSENT,
            parent=above,
            uid=owner.st_uid,
            gid=owner.st_gid,
        )
        return dataclasses.replace(FACTS, uid=os.geteuid(), gid=os.getegid(), data=data, current=self.current)

    def prepared(self) -> Prepared:
        facts = self.facts
        return Prepared(
            loaded=Loaded(profile=self.profile, name="default", ref="team.yaml", overrides=(OVERRIDE,)),
            detection=Detection(engine=self.engine, info=EngineInfo(name=self.engine.name, version="1")),
            facts=facts,
            plan=make(self.profile, facts),
            previous=self.engine.held.get("devpi" + PREVIOUS) if self.current is None else None,
            image=BUILT,
            image_ready=True,
        )

    def up(self, *, keep: bool = False) -> up.Outcome:
        return up.up("default", "devpi", overrides=(), ui=UI(quiet=True), keep=keep, clients=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    made = World(FakeEngine(stock={FACTS.image_ref: BUILT}), tmp_path / "data")

    def prepare(*args: object, **words: object) -> Prepared:
        made.asked.append((args, words))
        return made.prepared()

    def seed(*_: object, **words: object) -> tuple[Change, ...]:
        made.seeded.append(words)
        return ()

    monkeypatch.setattr(up, "prepare", prepare)
    monkeypatch.setattr(up, "seed", seed)

    def again(**words: object) -> Ready:
        made.waited.append(str(words["url"]))
        return ready()

    monkeypatch.setattr(start, "wait", again)
    ends(monkeypatch, ready)
    return made


def ends(monkeypatch: pytest.MonkeyPatch, how: Callable[[], Ready]) -> None:
    """Let the wait of ``up`` end in this way."""
    monkeypatch.setattr(up, "wait", lambda **_: how())


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> Ready:
        raise error

    ends(monkeypatch, fail)


def changed(world: World) -> None:
    """Have the profile ask for another container than the one that is there."""
    world.profile = Profile(network=BRIDGE, server=Server(threads=7))


def test_a_deployment_that_answers_stays(world: World, tmp_path: Path) -> None:
    assert world.up().done == "created"
    assert world.current is not None and world.current.state is State.RUNNING
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert world.up().done == "unchanged"


def test_a_success_is_recorded_here_and_beside_the_data(world: World, tmp_path: Path) -> None:
    done = world.up()
    assert read_applied("devpi") == Applied(
        profile_name="default",
        profile_ref="team.yaml",
        engine="docker",
        simple_url=done.plan.simple_url,
        profile=world.profile.model_dump(mode="json"),
        overrides=(Overridden(**asdict(OVERRIDE)),),
        data_source=str(tmp_path / "data"),
        data_uuid="u",
    )
    assert used_by(tmp_path / "data") == Usage(name="devpi", state=str(tmp_path / "state"), uid=os.geteuid())


def test_a_failure_is_not_recorded(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up(keep=True)
    assert read_applied("devpi") is None
    assert used_by(tmp_path / "data") is None


def test_the_data_of_another_image_is_not_marked(world: World, tmp_path: Path) -> None:
    world.profile = Profile(network=BRIDGE, image=ImageModel(ref=FACTS.image_ref, data_path="/devpi"))
    world.up()
    assert used_by(tmp_path / "data") is None


def test_each_option_goes_where_it_counts(world: World) -> None:
    quiet = UI(quiet=True)
    up.up("team", "devpi", overrides=(OVERRIDE,), ui=quiet, replace=True, new_data=True, prune=True, clients=False)
    up.up("team", "devpi", overrides=(), ui=quiet, clients=False)
    assert world.asked == [
        (("team", "devpi"), {"overrides": (OVERRIDE,), "replace": True, "new_data": True}),
        (("team", "devpi"), {"overrides": (), "replace": False, "new_data": False}),
    ]
    assert world.seeded == [{"removing": True}, {"removing": False}]


def test_another_run_is_not_waited_for_unless_told(world: World) -> None:
    with hold("devpi"), pytest.raises(Locked):
        world.up()
    assert world.asked == []


def test_the_wait_is_for_this_server_on_this_data(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, Any] = {}

    def wait(**told: Any) -> Ready:
        words.update(told)
        return ready()

    monkeypatch.setattr(up, "wait", wait)
    plan = world.up().plan
    assert (words["url"], words["engine"], words["name"]) == (plan.url, world.engine, "devpi")
    assert (words["deadline"], words["index"]) == (plan.ready_timeout, None)
    with pytest.raises(VerificationError, match="stores no data"):
        words["expected_uuid"]()
    (world.data / ".nodeinfo").write_text('{"uuid": "abc"}')
    (world.data / ".deployer/proof-key").write_text("5a\n")
    (world.data / ".deployer/root-password").write_text("correct horse\n")
    for path in world.data.rglob("*"):
        os.chown(path, world.data.stat().st_uid, -1)
    assert (words["expected_uuid"](), words["proof_key"]()) == ("abc", "5a")
    assert words["credentials"]() == Secret("correct horse")
    world.up()
    assert words["credentials"] is None  # nothing is changed


def test_directories_above_the_data_go_with_it_unless_they_were_there(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    world.data = tmp_path / "there/a/b/data"
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up()
    assert [path.name for path in tmp_path.rglob("*") if "state" not in path.parts[-3:]] == ["there"]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_first_run_that_fails_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, tmp_path: Path
) -> None:
    fails(monkeypatch, error)
    with pytest.raises(type(error)):
        world.up()
    assert world.engine.held == {}
    assert not (tmp_path / "data").exists()
    assert world.waited == []


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_change_that_fails_brings_back_what_ran(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, tmp_path: Path
) -> None:
    world.up()
    before = world.current
    assert before is not None
    changed(world)
    fails(monkeypatch, error)
    with pytest.raises(type(error)):
        world.up()
    assert world.engine.held == {"devpi": before}
    assert world.waited == ["http://127.0.0.1:3141"]
    assert (tmp_path / "data").is_dir()


def test_what_was_stopped_is_not_started_by_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    world.engine.stop("devpi", timeout=start.STOP)
    before = world.current
    changed(world)
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up()
    assert world.engine.held == {"devpi": before}
    assert world.waited == []


def test_a_stopped_server_that_does_not_answer_is_stopped_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    world.engine.stop("devpi", timeout=start.STOP)
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up()
    assert world.current is not None and world.current.state is State.STOPPED
    ends(monkeypatch, ready)
    assert world.up().done == "started"


def test_an_engine_that_refuses_the_new_container_keeps_the_former(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up()
    before = world.current
    changed(world)

    def refuse(_spec: object) -> str:
        raise EngineError("no space", hint="h")

    monkeypatch.setattr(world.engine, "run", refuse)
    with pytest.raises(EngineError):
        world.up()
    assert world.engine.held == {"devpi": before}
    assert world.waited == ["http://127.0.0.1:3141"]


def test_a_rollback_that_does_not_come_up_hides_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.up()
    changed(world)
    fails(monkeypatch, Refused("the reason", hint="h"))

    def late(**_: object) -> Ready:
        raise NotReadyError("too slow", hint="h")

    monkeypatch.setattr(start, "wait", late)
    with pytest.raises(Refused, match="the reason"):
        world.up()
    assert world.current is not None and world.current.state is State.RUNNING


def test_what_an_interrupted_run_set_aside_comes_back_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    before = world.current
    world.engine.rename("devpi", "devpi" + PREVIOUS)
    world.engine.stop("devpi" + PREVIOUS, timeout=start.STOP)
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up()
    assert set(world.engine.held) == {"devpi"}
    assert world.current is not None and before is not None and world.current.id == before.id


def test_a_success_removes_what_was_set_aside_and_its_image(world: World) -> None:
    world.up()
    before = world.current
    changed(world)
    assert world.up().done == "recreated"
    assert set(world.engine.held) == {"devpi"}
    assert world.current is not None and before is not None and world.current.id != before.id


@pytest.mark.parametrize("kind", [NotReadyError, Refused, ConflictError])
def test_keep_leaves_a_stopped_container_and_the_data(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[DeployerError], tmp_path: Path
) -> None:
    fails(monkeypatch, kind("no", hint="h"))
    with pytest.raises(kind):
        world.up(keep=True)
    assert world.current is not None and world.current.state is State.STOPPED
    assert (tmp_path / "data").is_dir()


def test_keep_leaves_the_former_set_aside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    changed(world)
    fails(monkeypatch, FAILURES[0])
    with pytest.raises(NotReadyError):
        world.up(keep=True)
    assert {name: container.state for name, container in world.engine.held.items()} == {
        "devpi": State.STOPPED,
        "devpi" + PREVIOUS: State.STOPPED,
    }


def test_keep_stops_no_server_that_a_user_interrupted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.up(keep=True)
    assert world.current is not None and world.current.state is State.RUNNING


# Versions

PUBLIC = Profile(network=Network(mode="bridge", bind=ip_address("0.0.0.0"), expose=True))


@pytest.mark.parametrize("version", ["", "5.0", "6.20.1", "6.20.2rc1"])
def test_a_server_with_a_known_hole_is_shown_to_nobody_else(version: str) -> None:
    plan = make(PUBLIC)
    assert not plan.loopback
    with pytest.raises(Refused, match="replication data") as caught:
        up.check_version(plan, ready(version))
    assert "127.0.0.1" in caught.value.hint
    up.check_version(make(), ready(version))


@pytest.mark.parametrize("version", ["6.20.2", "6.20.10", "6.100", "7.0.0b4"])
def test_a_server_without_it_is(version: str) -> None:
    up.check_version(make(PUBLIC), ready(version))


def test_the_refusal_of_an_old_server_rolls_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.profile = PUBLIC
    ends(monkeypatch, lambda: ready("6.20.1"))
    with pytest.raises(Refused, match="replication data"):
        world.up()
    assert world.engine.held == {}


def test_what_an_older_run_set_aside_makes_room(world: World) -> None:
    world.up()
    before = world.current
    assert before is not None
    world.engine.held["devpi" + PREVIOUS] = dataclasses.replace(before, name="devpi" + PREVIOUS, id="older")
    changed(world)
    assert world.up().done == "recreated"
    assert set(world.engine.held) == {"devpi"}


def test_a_container_of_somebody_else_is_never_set_aside(world: World) -> None:
    world.up()
    assert world.current is not None
    theirs = dataclasses.replace(world.current, name="devpi" + PREVIOUS, labels={})
    assert LABEL_NAME not in theirs.labels
    world.engine.held[theirs.name] = theirs
    changed(world)
    with pytest.raises(ConflictError):
        world.up()
    assert world.engine.held[theirs.name] == theirs
    assert world.current is not None and world.current.state is State.RUNNING
