"""The stack of a cluster: its shape, that docker takes it, and that each value comes back as it went in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from deployer import __version__
from deployer.clusters.base import Identity, Wanted
from deployer.clusters.swarm.checks import check, warnings_by_hand
from deployer.clusters.swarm.difference import part_of
from deployer.clusters.swarm.stack import Ground, by_hand, stack, text
from deployer.errors import DeployerError
from deployer.profile.load import load
from deployer.profile.load.files import available
from deployer.profile.models import Profile
from tests.engines import need

FULL = {
    "network": {"expose": True, "port": 8080, "outside_url": "https://pypi.example.com/", "hosts": ["pypi"]},
    "cluster": {
        "replicas": 2,
        "write_wait": 1.5,
        "replica_upstream": False,
        "files_on_demand": ["root/pypi"],
        "image": "registry.example.com/deployer:1",
    },
    "server": {
        "metrics": "127.0.0.1:9141",
        "memory": "512m",
        "cpus": 1.5,
        "restart": "on-failure:5",
        "stop_timeout": 20,
        "plugins": ["devpi-ldap==2.2.0"],
        "options": {"ldap-config": "/etc/$HOME/ldap.yaml"},
    },
    "swarm": {"nodes": ["alpha", "beta"]},
}


def wanted(told: Mapping[str, Any] | Profile, *, name: str = "devpi", identity: Identity | None = None) -> Wanted:
    profile = told if isinstance(told, Profile) else Profile.model_validate(told)
    image = profile.cluster.image or "localhost/deployer-devpi:6.20.3"
    return Wanted(name=name, profile=profile, profile_name="team", image=image, identity=identity or Identity())


def read(rendered: str) -> Any:
    """The document as docker reads it: two dollars are one."""
    return json.loads(json.dumps(yaml.safe_load(rendered)).replace("$$", "$"))


def shipped(tmp: Path) -> Iterator[tuple[str, Wanted]]:
    for profile in available(tmp):
        made = load(profile.name).profile
        settings = {"cluster": {"replicas": 2}, "network": {**made.network.model_dump(), "expose": True}}
        told = Profile.model_validate(made.model_dump() | settings)
        try:
            check(one := wanted(told))
        except DeployerError:
            continue
        yield profile.name, one


def test_a_stack(snapshot: SnapshotAssertion) -> None:
    made = by_hand(wanted(FULL, identity=Identity(primary=1, uuid="f" * 32)))
    assert made.replace(f"version: {__version__}", "version: VERSION") == snapshot


def test_docker_takes_every_stack(tmp_path: Path) -> None:
    need("docker")
    found = [*shipped(tmp_path), ("full", wanted(FULL))]
    assert len(found) > 3
    for name, one in found:
        (file := tmp_path / f"{name}.yaml").write_text(by_hand(one))
        done = subprocess.run(
            ["docker", "stack", "config", "--compose-file", str(file)], capture_output=True, text=True, check=False
        )
        if "unknown" in done.stderr or "is not a docker command" in done.stderr:
            pytest.skip("docker's client is older than 23, and has no stack config")
        assert done.returncode == 0, (name, done.stderr)
        assert "unsupported" not in done.stderr.lower()
        assert set(yaml.safe_load(done.stdout)["services"]) == set(stack(one, Ground())["services"])


def test_what_members_may_do() -> None:
    services = stack(wanted(FULL), Ground())["services"]
    assert set(services) == {"member-0", "member-1", "member-2", "balancer-0", "balancer-1"}
    for part, service in services.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["deploy"]["update_config"]["order"] == "stop-first"
        assert service["deploy"]["replicas"] == 1
        published = [(one["published"], one["mode"]) for one in service.get("ports", ())]
        assert published == ([(8080, "host")] if part.startswith("balancer") else [])
    where = [service["deploy"]["placement"]["constraints"] for service in services.values()]
    assert where == [[f"node.hostname == {node}"] for node in ("alpha", "beta", "alpha", "alpha", "beta")]


def test_no_anchor_is_left_to_look_up() -> None:
    assert "&id" not in text(stack(wanted(FULL), Ground()))


def test_each_service_alone_is_whole() -> None:
    document = stack(wanted(FULL), Ground())
    for part, service in document["services"].items():
        alone = part_of(document, (part,))
        assert set(alone["volumes"]) == {one["source"] for one in service["volumes"] if "source" in one}
        assert set(alone["secrets"]) == {one["source"] for one in service.get("secrets", ())}


def test_what_is_replaced() -> None:
    """Another image, role or node replaces a task; the uuid and the number of tasks do not."""

    def digests(one: Wanted, ground: Ground) -> list[str]:
        return [
            service["labels"]["io.devpi.deployer.spec-sha256"] for service in stack(one, ground)["services"].values()
        ]

    plain = digests(wanted(FULL), Ground())
    assert digests(wanted(FULL, identity=Identity(uuid="f" * 32)), Ground()) == plain
    assert digests(wanted(FULL), Ground(stopped=frozenset({1}))) == plain
    assert not set(digests(wanted(FULL, identity=Identity(primary=1)), Ground())) & set(plain)
    rotated = digests(wanted(FULL), Ground(secrets={"members-secret": 2, "root-password": 1}))
    assert not set(rotated) & set(plain)


def test_what_a_stack_can_not_be_sure_of() -> None:
    assert warnings_by_hand(wanted(FULL)) == ()
    assert len(warnings_by_hand(wanted({"network": {"expose": True}, "data": "lib"}))) == 3


@given(value=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
def test_each_value_comes_back_as_it_went_in(value: str) -> None:
    told = {**FULL, "server": {"options": {"odd": value}}}
    one = wanted(told)
    document = stack(one, Ground())
    assert yaml.safe_load(text(document))["services"]["member-0"]["command"] == [
        word.replace("$", "$$") for word in document["services"]["member-0"]["command"]
    ]
    assert f"odd={value}" in document["services"]["member-0"]["command"]
