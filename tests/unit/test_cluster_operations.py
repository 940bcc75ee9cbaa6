"""What is the same at every place: promotion in its order, status, waiting, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deployer.clusters.base import Identity, Wanted
from deployer.errors import ConflictError, NotReadyError, Refused
from deployer.operations.cluster import places
from deployer.operations.cluster.doctor import of_fronts, of_member, of_versions
from deployer.operations.cluster.logs import followed, lines
from deployer.operations.cluster.promote import check, promote
from deployer.operations.cluster.standing import await_all, standing
from deployer.operations.cluster.stats import rows, summed
from deployer.operations.cluster.status import row, status, text, trouble
from deployer.profile.load import Loaded, load
from deployer.profile.load.overrides import Override
from deployer.protocol import Counted, Refusal
from deployer.spec import State
from deployer.ui.output import UI
from tests.fake_cluster import UUID, FakeCluster, FakeMember

SOON = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def loaded() -> Loaded:
    return load("default", overrides=(Override("cluster.replicas", 2, "--set"),))


@pytest.fixture
def cluster(loaded: Loaded) -> FakeCluster:
    made = FakeCluster(kept=Identity(uuid=UUID))
    made.apply(Wanted(name="x", profile=loaded.profile, profile_name="x", image="", identity=Identity()), str)
    made.done.clear()
    return made


def promoted(cluster: FakeCluster, loaded: Loaded, number: int, *, losing: bool = False, yes: bool = True) -> object:
    return promote(cluster, loaded, "x", number, losing=losing, yes=yes, headers={}, ui=UI(quiet=True))


def test_a_promotion_fences_before_it_remembers(cluster: FakeCluster, loaded: Loaded) -> None:
    promoted(cluster, loaded, 2)
    assert cluster.done == [
        "stop 0",
        "order 2",
        "remember 2",
        "start 2 primary",
        "store credentials 2",
        "renew 0",
    ]
    assert cluster.kept == Identity(primary=2, uuid=UUID)
    assert {number: one.role for number, one in cluster.there.items()} == {0: "replica", 1: "replica", 2: "primary"}


def test_the_former_primary_keeps_its_data_where_something_may_be_lost(cluster: FakeCluster, loaded: Loaded) -> None:
    cluster.lost = 3
    promoted(cluster, loaded, 1, losing=True)
    assert "renew 0" not in cluster.done
    assert cluster.there[0].state is State.STOPPED


def test_a_member_that_has_more_than_the_new_primary_is_not_waited_for(
    cluster: FakeCluster, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.there[2].serial, cluster.lost = 5, 3
    apply = cluster.apply

    def applied(wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        cluster.there[2].errors = ("it is ahead of its primary",)
        return apply(wanted, on_line)

    monkeypatch.setattr(cluster, "apply", applied)
    found = promote(cluster, loaded, "x", 1, losing=True, yes=True, headers={}, ui=UI())
    assert [one.number for one in found.members] == [1]
    assert "member 2 has commits that member 1 lacks" in capsys.readouterr().err
    assert not any(line.startswith("renew") for line in cluster.done)


def test_a_refused_order_lets_the_primary_run_again(cluster: FakeCluster, loaded: Loaded) -> None:
    cluster.refusal = Refusal("it lacks 2 commits", hint="accept the loss: --even-if-behind", code=5).text
    with pytest.raises(ConflictError, match="member 1: it lacks 2 commits"):
        promoted(cluster, loaded, 1)
    assert cluster.done == ["stop 0", "order 1", "restart 0"]
    assert cluster.kept == Identity(primary=0, uuid=UUID)


def test_a_primary_that_runs_is_stopped_only_after_a_yes(cluster: FakeCluster, loaded: Loaded) -> None:
    with pytest.raises(Refused):
        promoted(cluster, loaded, 1, yes=False)
    assert cluster.done == []
    cluster.there[0].state = State.STOPPED
    promoted(cluster, loaded, 1, yes=False)


@pytest.mark.parametrize(("number", "words"), [(0, "is the primary"), (7, "there is no member 7")])
def test_members_that_can_not_be_promoted(cluster: FakeCluster, loaded: Loaded, number: int, words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        promoted(cluster, loaded, number)
    assert cluster.done == []


def test_the_member_that_has_most_is_to_be_promoted(cluster: FakeCluster) -> None:
    cluster.there[2].serial = 5
    with pytest.raises(Refused, match="member 2 has 3 commits more than member 1") as refused:
        check(standing(cluster), 0, 1, losing=False)
    assert "deployer cluster promote 2" in refused.value.hint
    check(standing(cluster), 0, 1, losing=True)
    check(standing(cluster), 0, 2, losing=False)
    cluster.there[2].errors = ("it has other data",)
    with pytest.raises(ConflictError, match="does not follow its primary: it has other data"):
        check(standing(cluster), 0, 2, losing=True)
    cluster.there[1].state = State.STOPPED
    with pytest.raises(ConflictError, match="member 1 does not answer"):
        check(standing(cluster), 0, 1, losing=True)


def test_status_says_which_member_is_not_in_sync(cluster: FakeCluster) -> None:
    data, members, error = status(cluster, "x")
    assert (data["ready"], data["state"], data["primary"], error) == (True, "running", 0, None)
    assert "replica" in text(data, members)
    cluster.there[1].state = State.STOPPED
    cluster.there[2].errors = ("it has other data",)
    data, members, error = status(cluster, "x")
    assert (data["ready"], data["state"]) == (False, "unhealthy")
    assert error is not None
    assert "member 1, a replica" in error.message
    assert error.details == ("member 2: it has other data",)
    assert row(members[1])[2] == "stopped"
    cluster.there[0].state = State.STOPPED
    found = trouble(standing(cluster), 0)
    assert found is not None
    assert "deployer cluster promote 1" in found.hint
    assert status(FakeCluster(), "x")[0]["state"] == "absent"


def test_waiting_ends_when_a_member_has_ended(cluster: FakeCluster) -> None:
    cluster.there[1].state = State.STOPPED
    with pytest.raises(NotReadyError, match="member 1: stopped"):
        await_all(lambda: standing(cluster), 3, deadline=SOON)


def test_waiting_goes_on_while_a_member_gets_further() -> None:
    cluster = FakeCluster(kept=Identity(), there={0: FakeMember(role="primary"), 1: FakeMember(errors=("copying",))})
    now, seen = [0.0], []

    def sleep(_seconds: float) -> None:
        now[0] += 50.0
        cluster.there[1].serial += 1
        if cluster.there[1].serial == 9:
            cluster.there[1].errors = ()

    await_all(lambda: standing(cluster), 2, deadline=SOON, on_line=seen.append, clock=lambda: now[0], sleep=sleep)
    assert now[0] > SOON.total_seconds()
    assert seen[0] == "member 1 copying"
    cluster.there[1].errors = ("stuck",)

    def wait(_seconds: float) -> None:
        now[0] += 50.0

    with pytest.raises(NotReadyError, match="member 1: stuck"):
        await_all(lambda: standing(cluster), 2, deadline=SOON, clock=lambda: now[0], sleep=wait)


def test_logs_name_their_member(cluster: FakeCluster) -> None:
    assert list(lines(cluster, [0, 2], since="", tail=1)) == ["0 line 2", "2 line 2"]
    assert sorted(followed(cluster, [0, 1], since="", tail=1)) == ["0 line 2", "1 line 2"]


def test_counts_are_summed() -> None:
    def counted(requests: int) -> Counted:
        of = {"requests": requests, "hits": 1, "misses": 0, "bytes_served": 10, "bytes_saved": 5}
        return {"since": "2026-01-01", "indexes": {"root/dev": of}, "upstreams": {}}  # type: ignore[typeddict-item]

    found = {0: counted(2), 1: counted(3)}
    assert summed(list(found.values()))["root/dev"]["requests"] == 5
    assert [line[:2] for line in rows(found)] == [("root/dev", "5"), ("member 0", "2"), ("member 1", "3")]


def test_doctor_names_what_is_wrong(cluster: FakeCluster) -> None:
    cluster.there[1].state = State.STOPPED
    cluster.there[2].errors = ("it has other data",)
    levels = [(of_member(one).level, of_member(one).cure) for one in standing(cluster)]
    assert [str(level) for level, _ in levels] == ["ok", "failure", "failure"]
    assert "deployer cluster renew 2" in levels[2][1]
    found = standing(cluster)
    assert found[0].status is not None
    other = replace(found[0], status=replace(found[0].status, version="2"))
    assert str(of_versions((other, found[2])).level) == "warning"


def test_doctor_names_a_member_that_nginx_does_not_serve(cluster: FakeCluster) -> None:
    found = standing(cluster)
    assert of_fronts(found).level == "ok"  # of older members, nothing is known
    assert found[1].status is not None
    slow = replace(found[1], status=replace(found[1].status, front="python: nginx is not installed"))
    told = of_fronts((found[0], slow, found[2]))
    assert (told.level, told.evidence.startswith("member 1: devpi answers everything itself")) == ("warning", True)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("server.version", "7", "devpi-server 7"),
        ("image.ref", "example.com/devpi:1", "is not built by deployer"),
        ("data", "temp", "one job"),
    ],
)
def test_what_no_cluster_can_do_is_refused(key: str, value: str, words: str) -> None:
    found = load("default", overrides=(Override("cluster.replicas", 1, "--set"), Override(key, value, "--set")))
    with pytest.raises(Refused, match=words):
        places.check(found.profile)


def test_the_place_of_a_profile() -> None:
    def place(**keys: object) -> Iterator[Override]:
        return (Override(key.replace("__", "."), value, "--set") for key, value in keys.items())

    assert places.place_of(load("default").profile) is None
    assert places.place_of(load("default", overrides=tuple(place(cluster__replicas=1))).profile) == "host"
    assert places.place_of(load("default", overrides=tuple(place(engine="swarm"))).profile) == "swarm"
