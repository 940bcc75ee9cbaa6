"""A container is compared with its plan by what the engine reports, not by its labels."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.engines.answers import container_from
from deployer.engines.dialects import DOCKER, NERDCTL
from deployer.operations.apply import Done, ensure_container, is_current
from deployer.plan.drift import strayed
from deployer.plan.facts import Content, DataFacts
from deployer.spec import (
    LABEL_BUILD,
    LABEL_NAME,
    Container,
    ContainerSpec,
    Image,
    Limits,
    Mount,
    NetworkMode,
    Port,
    Settings,
    State,
)
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import FACTS, make

SPEC = ContainerSpec(
    name="a",
    image="ours:1",
    build="b1",
    command=("serve",),
    env=(("TOKEN", "one"),),
    labels=((LABEL_NAME, "a"),),
    mounts=(Mount(kind="bind", source="/data", target="/data", relabel=True),),
    ports=(Port(host_ip="127.0.0.1", host_port=3141, container_port=3141),),
    user="3141:3141",
    limits=Limits(memory="256m", pids=512, cpus=0.5),
    withheld=("HTTP_PROXY", "http_proxy"),
)


def running(spec: ContainerSpec = SPEC) -> Container:
    engine = FakeEngine(stock={spec.image: Image(id="sha256:1", ref=spec.image)})
    engine.run(spec)
    return engine.held[spec.name]


def set_up(**settings: object) -> Container:
    found = running()
    return replace(found, settings=replace(found.settings, **settings))  # type: ignore[arg-type]


def test_what_was_made_as_planned_has_no_drift() -> None:
    assert strayed(SPEC, running()) == ()


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (set_up(restart="no"), "restart policy: no -> unless-stopped"),
        (set_up(memory=512 << 20), "memory limit: 536870912 -> 268435456"),
        (set_up(memory=0), "memory limit: 0 -> 268435456"),
        (set_up(pids=0), "pids limit: 0 -> 512"),
        (set_up(cpus=0.0), "CPU limit: 0.0 -> 0.5"),
        (set_up(user="0:0"), "user: 0:0 -> 3141:3141"),
        (set_up(read_only=False), "read-only root: False -> True"),
        (set_up(confined=False), "privileges: more than planned -> none"),
        (set_up(env={}), "variable TOKEN: nothing -> as planned"),
        (set_up(env={"TOKEN": "secret"}), "variable TOKEN: another value -> as planned"),
        (
            set_up(env={"TOKEN": "one", "http_proxy": "http://u:secret@p"}),
            "variable http_proxy: set by the engine's client -> nothing",
        ),
        (replace(running(), image="other:1"), "image: other:1 -> ours:1"),
        (replace(running(), network=NetworkMode.OTHER), "network: other -> bridge"),
        (replace(running(), mounts=()), "mounts: none -> /data at /data"),
        (replace(running(), ports=()), "published ports: none -> 127.0.0.1 3141 to 3141"),
        (replace(running(), command=("sleep", "9")), "command: 9 -> serve"),
    ],
)
def test_each_difference_is_told_without_values_of_variables(found: Container, line: str) -> None:
    assert strayed(SPEC, found) == (line,)


def test_an_added_mount_is_told_and_a_volume_of_the_image_is_not() -> None:
    anonymous = Mount(kind="volume", source="ab" * 32, target="/cache")
    socket = Mount(kind="bind", source="/var/run/docker.sock", target="/s")
    assert strayed(SPEC, replace(running(), mounts=(*SPEC.mounts, anonymous))) == ()
    assert strayed(SPEC, replace(running(), mounts=(*SPEC.mounts, socket))) != ()


def test_what_an_engine_does_not_report_is_not_compared() -> None:
    assert strayed(SPEC, replace(running(), settings=Settings(), network=None)) == ()
    stopped = replace(running(), state=State.STOPPED, ports=())  # nerdctl reports ports of running containers only
    assert strayed(SPEC, stopped) == ()


def test_defaults_of_an_engine_are_not_compared() -> None:
    plain = replace(SPEC, limits=Limits(), user="")
    assert strayed(plain, replace(running(plain), settings=Settings(pids=2048, user="root", memory=0, cpus=0.0))) == ()


def test_a_foreign_image_may_have_a_short_name_and_a_proxy_of_its_own() -> None:
    foreign = replace(SPEC, image="devpi:6", build="")
    env = {"TOKEN": "one", "HTTP_PROXY": "x"}
    found = replace(running(foreign), image="docker.io/library/devpi:6", settings=Settings(env=env))
    assert strayed(foreign, found) == ()


def test_what_systemd_restarts_has_another_policy() -> None:
    found = set_up(restart="no")
    assert strayed(SPEC, replace(found, labels={**found.labels, "PODMAN_SYSTEMD_UNIT": "a.service"})) == ()


def test_the_client_s_configuration_is_no_part_of_the_digest() -> None:
    assert replace(SPEC, withheld=()).sha256() == SPEC.sha256()


def test_up_replaces_a_container_that_was_changed_by_hand(tmp_path: Path) -> None:
    made = make(facts=replace(FACTS, data=DataFacts(path=tmp_path, content=Content.DEVPI, uid=1000, gid=1000)))
    image = Image(id="sha256:1", ref=made.spec.image, labels={LABEL_BUILD: made.spec.build})
    engine = FakeEngine(stock={made.spec.image: image})
    with ExitStack() as rollback:
        assert ensure_container(made, engine, None, image, rollback) is Done.CREATED
        current = engine.held[made.name]
        assert ensure_container(made, engine, current, image, rollback) is Done.UNCHANGED
        changed = replace(current, settings=replace(current.settings, restart="no"))
        engine.held[made.name] = changed
        assert not is_current(made, changed, image)
        assert ensure_container(made, engine, changed, image, rollback) is Done.RECREATED
        assert is_current(made, engine.held[made.name], image)
        rollback.pop_all()


def inspected(**host: object) -> dict[str, object]:
    return {"Name": "/a", "State": {"Status": "running"}, "Config": {"User": "", "Env": ["A=b=c"]}, "HostConfig": host}


@pytest.mark.parametrize(
    ("host", "key", "value"),
    [
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, "restart", "on-failure:3"),
        ({"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}}, "restart", "no"),
        ({}, "restart", None),
        ({"PidsLimit": None}, "pids", 0),
        ({"PidsLimit": -1}, "pids", 0),
        ({}, "pids", None),
        ({"NanoCpus": 500_000_000, "CpuQuota": 0}, "cpus", 0.5),
        ({"NanoCpus": 0, "CpuQuota": 50_000, "CpuPeriod": 0}, "cpus", 0.5),
        ({"NanoCpus": 0, "CpuQuota": -1}, "cpus", 0),
        ({}, "cpus", None),
        ({"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Privileged": False}, "confined", True),
        ({"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Privileged": True}, "confined", False),
        ({"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "CapAdd": ["NET_ADMIN"]}, "confined", False),
        ({"CapDrop": None, "SecurityOpt": None}, "confined", False),
        ({}, "env", {"A": "b=c"}),
    ],
)
def test_answers_of_an_engine(host: dict[str, object], key: str, value: object) -> None:
    raw = json.loads(json.dumps(inspected(**host)))
    assert getattr(container_from(raw, DOCKER).settings, key) == value
    assert container_from(raw, NERDCTL).settings == Settings()
