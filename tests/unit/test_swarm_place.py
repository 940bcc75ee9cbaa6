"""What a place on a Docker Swarm does, on a swarm in memory: order, refusals, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from deployer.clusters.base import Identity, Wanted
from deployer.clusters.swarm.place import SwarmCluster
from deployer.errors import ConflictError, DeployerError, EngineError, EngineUnreachable, NotReadyError, Refused
from deployer.profile.models import Profile
from tests.fake_swarm import HERE, FakeSwarm

OPEN = {"engine": "swarm", "network": {"expose": True}, "cluster": {"replicas": 2}}
SOON = timedelta(seconds=1)


class Clock:
    """Each pause is a second."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 30


@pytest.fixture
def swarm() -> FakeSwarm:
    return FakeSwarm()


@pytest.fixture
def cluster(swarm: FakeSwarm) -> SwarmCluster:
    clock = Clock()
    return SwarmCluster("devpi", runner=swarm, clock=clock, sleep=clock.sleep)


def wanted(cluster: SwarmCluster, told: Mapping[str, Any] = OPEN, *, name: str = "devpi") -> Wanted:
    return Wanted(
        name=name,
        profile=Profile.model_validate(told),
        profile_name="team",
        image="localhost/deployer-devpi:6.20.3",
        identity=cluster.identity() or Identity(),
    )


def up(cluster: SwarmCluster, told: Mapping[str, Any] = OPEN) -> list[str]:
    lines: list[str] = []
    cluster.apply(wanted(cluster, told), lines.append)
    assert cluster.differences(wanted(cluster, told)) == ()
    return lines


def changed(**keys: Any) -> dict[str, Any]:
    return {**OPEN, **keys}


def parts(swarm: FakeSwarm) -> list[str]:
    return [name.removeprefix("devpi_") for name in swarm.replaced]


@pytest.mark.parametrize(
    ("swarm_info", "cure"),
    [
        ({"LocalNodeState": "inactive"}, "docker swarm init"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "set swarm.context to the context of a manager"),
    ],
)
def test_no_swarm_is_made(cluster: SwarmCluster, swarm: FakeSwarm, swarm_info: dict[str, Any], cure: str) -> None:
    swarm.swarm = swarm_info
    for ask in (cluster.probe, lambda: up(cluster)):
        with pytest.raises(EngineUnreachable) as caught:
            ask()
        assert caught.value.hint == cure
    assert not swarm.services
    assert not any("create" in words for words in swarm.argvs)


def test_the_first_time_all_members_are_made_at_once(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    assert cluster.differences(wanted(cluster))[0] == "member-0: create"
    assert not swarm.objects["secret"]
    assert up(cluster) == ["creating member-0, member-1, member-2, balancer-0"]
    assert parts(swarm) == ["member-0", "member-1", "member-2", "balancer-0"]
    assert set(swarm.objects["secret"]) == {"devpi_members-secret.1", "devpi_root-password.1"}
    assert not cluster.apply(wanted(cluster), print)


def test_no_command_line_has_a_secret(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    given = [
        stdin.decode()
        for argv, stdin in zip(swarm.argvs, swarm.stdins, strict=True)
        if argv[1:3] == ("secret", "create")
    ]
    assert len(set(given)) == 2
    assert all(len(secret) >= 32 for secret in given)
    assert not any(secret in word for secret in given for argv in swarm.argvs for word in argv)


def test_secrets_that_are_there_are_used(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    for name in ("devpi_members-secret.4", "devpi_root-password.10", "devpi_root-password.9"):
        swarm.objects["secret"][name] = {"labels": {}, "raw": {}}
    up(cluster)
    assert b"devpi_members-secret.4" in swarm.stdins[_deploys(swarm)[0]]
    assert b"devpi_root-password.10" in swarm.stdins[_deploys(swarm)[0]]
    cluster.down(purging=True, on_line=print)
    assert len(swarm.objects["secret"]) == 3  # not deployer's


def _deploys(swarm: FakeSwarm) -> list[int]:
    return [number for number, argv in enumerate(swarm.argvs) if argv[1:3] == ("stack", "deploy")]


def test_a_uuid_replaces_no_task(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    swarm.replaced.clear()
    cluster.remember(Identity(uuid="f" * 32))
    assert cluster.differences(wanted(cluster)) == ()
    assert not cluster.apply(wanted(cluster), print)
    assert parts(swarm) == []
    labels = [one["Spec"]["Labels"].get("io.devpi.deployer.uuid") for one in swarm.services.values()]
    assert labels == ["f" * 32] * 3 + [None]


def test_replicas_are_replaced_one_by_one_and_the_primary_after_them(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    swarm.replaced.clear()
    told = changed(server={"threads": 20})
    assert len(cluster.differences(wanted(cluster, told))) == 3
    up(cluster, told)
    assert parts(swarm) == ["member-1", "member-2", "member-0"]


def test_a_replica_that_stays_unhealthy_stops_the_change(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    swarm.replaced.clear()
    swarm.held.add("devpi_member-1")
    with pytest.raises(NotReadyError, match="member-1 did not become healthy"):
        cluster.apply(wanted(cluster, changed(server={"threads": 20})), print)
    assert parts(swarm) == ["member-1"]


def test_a_rollback_is_told(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    deploy = swarm._stack_deploy

    def rolled_back(words: list[str], stdin: bytes) -> tuple[str, str]:
        done = deploy(words, stdin)
        swarm.services["devpi_member-1"]["UpdateStatus"] = {"State": "rollback_completed", "Message": "no such image"}
        return done

    swarm._stack_deploy = rolled_back  # type: ignore[method-assign]
    with pytest.raises(NotReadyError, match="member-1 was rolled back: rollback_completed: no such image"):
        cluster.apply(wanted(cluster, changed(server={"threads": 20})), print)


def test_a_promoted_member_is_first_and_the_former_primary_stays_stopped(
    cluster: SwarmCluster, swarm: FakeSwarm
) -> None:
    up(cluster)
    cluster.stop(0, timeout=SOON)
    cluster.remember(Identity(primary=2, uuid="f" * 32))
    swarm.replaced.clear()
    cluster.apply(wanted(cluster), print)
    assert parts(swarm) == ["member-2", "member-1", "balancer-0"]
    assert cluster.members()[0].why == "stopped"
    cluster.renew(0)
    assert parts(swarm)[-1] == "member-0"
    assert cluster.differences(wanted(cluster)) == ()
    # The volume is emptied at its node, by a task of our image.
    (made,) = [argv for argv in swarm.argvs if argv[1:3] == ("service", "create")]
    assert f"--constraint=node.id == {HERE}" in made
    assert "--mount=type=volume,source=devpi_member-0,target=/data" in made


def test_the_primary_is_not_renewed(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    with pytest.raises(Refused):
        cluster.renew(0)
    assert "devpi_member-0" in swarm.objects["volume"]


def test_a_member_that_may_still_run_is_no_fence(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    swarm.lost.add("devpi_member-0")
    with pytest.raises(EngineError, match="it may still run at here") as caught:
        cluster.stop(0, timeout=SOON)
    assert caught.value.hint == "make sure that here is off, then: docker node rm --force here"


def test_a_smaller_cluster_keeps_volumes(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    lines = up(cluster, changed(cluster={"replicas": 0}))
    assert lines == ["replacing balancer-0", "removing member-1", "removing member-2"]
    assert set(swarm.objects["volume"]) == {f"devpi_member-{number}" for number in range(3)}


def test_the_primary_is_not_scaled_away(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    cluster.remember(Identity(primary=2))
    with pytest.raises(Refused, match="member 2 is the primary"):
        cluster.differences(wanted(cluster, changed(cluster={"replicas": 1})))


def test_down_and_up_keep_who_is_the_primary(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    up(cluster)
    cluster.remember(Identity(primary=1, uuid="f" * 32))
    left = cluster.down(purging=False, on_line=print)
    assert left == ("devpi_member-0", "devpi_member-1", "devpi_member-2")
    assert not swarm.services
    assert not swarm.objects["network"]
    assert cluster.identity() == Identity(primary=1, uuid="f" * 32)
    up(cluster)
    assert set(swarm.objects["secret"]) == {"devpi_members-secret.1", "devpi_root-password.1"}
    assert cluster.down(purging=True, on_line=print) == ()
    assert not any(swarm.objects.values())
    assert cluster.identity() is None


def test_members_are_kept_at_the_first_manager(swarm: FakeSwarm, cluster: SwarmCluster) -> None:
    """Another manager may be asked later: its node has no volumes."""
    up(cluster)
    swarm.swarm = {**swarm.swarm, "NodeID": "node-there"}
    assert cluster.differences(wanted(cluster)) == ()
    assert cluster.differences(wanted(cluster, changed(swarm={"nodes": ["here"]})))
    with pytest.raises(Refused, match="its volume is at the node here, not there"):
        cluster.differences(wanted(cluster, changed(swarm={"nodes": ["there"]})))


def test_members_of_named_nodes(swarm: FakeSwarm, cluster: SwarmCluster) -> None:
    told = changed(swarm={"nodes": ["here", "there"]})
    assert len(cluster.differences(wanted(cluster, told))) == 5  # a balancer at each node
    up(cluster, told)
    assert [member.where.partition(" on ")[2] for member in cluster.members()] == ["here", "there", "here"]
    with pytest.raises(EngineUnreachable, match="docker has no context of that name") as caught:
        cluster.exec(1, ("member", "status"))
    assert caught.value.hint == "docker context create there --docker host=ssh://there"
    swarm.contexts.add("there")
    assert cluster.exec(1, ("member", "status")).returncode == 0
    assert swarm.argvs[-1][1:4] == ("--context", "there", "exec")
    # Volumes do not move.
    with pytest.raises(Refused, match="member 0 is the primary, and its volume is at the node here, not there"):
        cluster.differences(wanted(cluster, changed(swarm={"nodes": ["there", "here"]})))
    # A volume at another node can only be named.
    del swarm.objects["volume"]["devpi_member-1"]
    assert cluster.down(purging=True, on_line=print) == ("devpi_member-1 (node.hostname == there)",)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"network": {}}, "Swarm publishes port 3141 at all addresses of a node"),
        ({"network": {"expose": True, "port": 0}}, "network.port is 0"),
        ({"network": {"expose": True, "tls": {"cert": "auto"}}}, "a swarm has no HTTPS of deployer's"),
        ({"network": {"expose": True, "ca_file": "/etc/ca.pem"}}, "/etc/ca.pem is a file of this host"),
        ({"network": {"expose": True, "proxy": True}}, "network.proxy: the proxy of this host"),
        ({"swarm": {"nodes": ["elsewhere"]}}, "the swarm has no node named elsewhere"),
        ({"server": {"plugins": ["devpi-ldap==2.2.0"]}}, "lacks server.plugins"),
    ],
)
def test_refusals(cluster: SwarmCluster, swarm: FakeSwarm, told: dict[str, Any], said: str) -> None:
    for ask in (cluster.differences, lambda one: cluster.apply(one, print)):
        with pytest.raises(Refused, match=said):
            ask(wanted(cluster, changed(**told)))
    assert not any(swarm.objects.values())


def test_an_index_with_readers_may_be_published(cluster: SwarmCluster) -> None:
    told = changed(network={}, users={"dev": {}}, indexes={"root/dev": {"type": "stage", "read": ["dev"]}})
    assert cluster.differences(wanted(cluster, told))


@pytest.mark.parametrize("name", ["_devpi", "devpi-", "d" * 46])
def test_names_that_docker_refuses(swarm: FakeSwarm, name: str) -> None:
    cluster = SwarmCluster(name, runner=swarm)
    with pytest.raises(DeployerError, match="can't begin the names of services"):
        cluster.apply(wanted(cluster, name=name), print)
    assert not swarm.services


def test_a_stack_of_somebody_else_is_left_alone(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    labels = {"com.docker.stack.namespace": "devpi"}
    swarm.services["devpi_web"] = {"ID": "w", "Spec": {"Name": "devpi_web", "Labels": labels}}
    for ask in (cluster.differences, lambda one: cluster.apply(one, print)):
        with pytest.raises(ConflictError, match="services that are not deployer's: web"):
            ask(wanted(cluster))
    assert cluster.members() == ()
    cluster.down(purging=True, on_line=print)
    assert set(swarm.services) == {"devpi_web"}


def test_a_config_of_somebody_else(cluster: SwarmCluster, swarm: FakeSwarm) -> None:
    swarm.objects["config"]["devpi_identity.1"] = {"labels": {}, "raw": {"Spec": {"Data": "bm8="}}}
    with pytest.raises(ConflictError, match=r"docker's config devpi_identity\.1 is not deployer's"):
        cluster.identity()


def test_where_it_is_reached(cluster: SwarmCluster) -> None:
    assert cluster.address() == ""
    with pytest.raises(NotReadyError), cluster.reach():
        pass
    up(cluster)
    assert cluster.address() == "http://192.0.2.7:3141"
    with cluster.reach() as url:
        assert url == "http://127.0.0.1:3141"
    assert cluster.password().reveal() == "a password"
    assert list(cluster.logs(0, tail=1)) == ["one line"]


def test_a_context_is_on_each_command_line(swarm: FakeSwarm) -> None:
    cluster = SwarmCluster("devpi", context="managers", runner=swarm)
    cluster.probe()
    cluster.members()
    assert {argv[1:3] for argv in swarm.argvs} == {("--context", "managers")}
