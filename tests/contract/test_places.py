"""What every place for the members of a cluster does: one in memory, Swarm and Kubernetes in memory, and this host."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.clusters.base import Cluster, Identity, Wanted
from deployer.clusters.kubernetes.kubectl import Kubectl, choose
from deployer.clusters.kubernetes.place import Kubernetes
from deployer.clusters.swarm.place import SwarmCluster
from deployer.errors import DeployerError
from deployer.operations.cluster.host.place import HostCluster
from deployer.operations.cluster.standing import await_all, await_synced, standing
from deployer.profile.load import Loaded, load
from deployer.protocol import MemberStatus, parsed
from deployer.spec import State
from deployer.ui.output import UI
from tests.engines import need
from tests.fake_cluster import FakeCluster
from tests.fake_kubernetes import FakeKubernetes
from tests.fake_swarm import FakeSwarm
from tests.plain_devpi import free_port

pytestmark = pytest.mark.timeout(600)
PATIENCE = timedelta(seconds=120)
NAME = "deployer-test-place"


class Place:
    """A cluster, and what is wanted of it."""

    def __init__(self, cluster: Cluster, loaded: Loaded) -> None:
        self.cluster, self.loaded = cluster, loaded

    def wanted(self, **changed: Any) -> Wanted:
        profile = self.loaded.profile
        profile = profile.model_copy(update={"server": profile.server.model_copy(update=changed)})
        identity = self.cluster.identity() or Identity()
        return Wanted(name=NAME, profile=profile, profile_name="team", image="", identity=identity)

    def in_sync(self) -> None:
        await_all(lambda: standing(self.cluster), self.wanted().size, deadline=PATIENCE)


@pytest.fixture(params=["fake", "swarm", "kubernetes", pytest.param("host", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "team.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "extends": "default",
                "engine": "swarm" if request.param == "swarm" else "process",
                "data": str(tmp_path / "data"),
                "network": {"port": free_port(), "expose": True},
                "cluster": {"replicas": 1},
            }
        )
    )
    loaded = load(str(file))
    if request.param == "fake":
        yield Place(FakeCluster(), loaded)
        return
    if request.param == "swarm":
        yield Place(SwarmCluster(NAME, runner=FakeSwarm()), loaded)
        return
    if request.param == "kubernetes":
        runner = FakeKubernetes()
        yield Place(Kubernetes(NAME, Kubectl(choose("", "", runner), runner)), loaded)
        return
    need("process")
    cluster = HostCluster(NAME, UI(quiet=True), loaded=loaded)
    try:
        yield Place(cluster, loaded)
    finally:
        cluster.down(purging=True, on_line=lambda line: None)


def silent(_line: str) -> None:
    """Nobody looks."""


def test_a_place(place: Place) -> None:
    cluster = place.cluster
    assert cluster.probe()
    assert (cluster.identity(), cluster.members()) == (None, ())

    # It comes up, and a second time there is nothing to do.
    assert cluster.differences(place.wanted())
    assert cluster.apply(place.wanted(), silent)
    place.in_sync()
    assert cluster.differences(place.wanted()) == ()
    assert not cluster.apply(place.wanted(), silent)
    assert [(member.number, member.state) for member in cluster.members()] == [(0, State.RUNNING), (1, State.RUNNING)]

    # The identity is kept, and told to whoever asks.
    told = [MemberStatus.parse(parsed(cluster.exec(number, ("member", "status")).stdout)) for number in (0, 1)]
    assert [(one.number, one.role) for one in told] == [(0, "primary"), (1, "replica")]
    cluster.remember(Identity(primary=0, uuid=told[0].uuid))
    assert cluster.identity() == Identity(primary=0, uuid=told[0].uuid)
    assert cluster.differences(place.wanted()) == ()
    assert cluster.password()
    assert len(list(cluster.logs(0, tail=1))) == 1
    with cluster.reach() as url:
        assert url.startswith("http://")

    # A changed setting is a difference.
    assert cluster.differences(place.wanted(threads=20))

    # A replica is stopped and stays so, until it gets new data. The primary never does.
    for _ in range(2):
        cluster.stop(1, timeout=timedelta(seconds=30))
    assert cluster.members()[1].state is State.STOPPED
    assert cluster.differences(place.wanted())
    cluster.renew(1)
    await_synced(cluster, 1, deadline=PATIENCE)
    with pytest.raises(DeployerError):
        cluster.renew(0)
    with pytest.raises(DeployerError):
        cluster.exec(7, ("member", "status"))

    # Without members the data are left, and with --purge nothing is.
    left = cluster.down(purging=False, on_line=silent)
    assert len(left) == 2
    assert (cluster.members(), cluster.identity()) == ((), Identity(primary=0, uuid=told[0].uuid))
    assert cluster.down(purging=True, on_line=silent) == ()
    assert cluster.identity() is None
