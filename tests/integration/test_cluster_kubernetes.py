"""One ``deployer up`` on a real Kubernetes: clients, the loss of each member, a promotion, and what ``down`` leaves.

``.ci/kubernetes test DIRECTORY`` builds one, starts it and runs this. Policies of networks are not enforced there.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import REQUIRED
from tests.integration.cli import Cli
from tests.integration.installers import pip, uv
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1800)]

HOLDER = os.environ.get("DEPLOYER_TEST_KUBERNETES", "")
"""A process in the network of the cluster."""
NODE = "10.99.0.1"
NAMESPACE = "pypi"
PATIENCE = 300.0
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


def why_not() -> str:
    """Why there is no cluster for these tests; empty when there is one."""
    if not HOLDER:
        return "there is no Kubernetes for tests: .ci/kubernetes test DIRECTORY (needs root, Go, containerd, docker)"
    if Path("/proc/self/ns/net").readlink() != Path(f"/proc/{HOLDER}/ns/net").readlink():
        return f"the Kubernetes of the tests has a network of its own: nsenter --net=/proc/{HOLDER}/ns/net pytest …"
    return ""


def kubectl(*words: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["kubectl", f"--namespace={NAMESPACE}", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(*words: str) -> Any:
    return json.loads(kubectl("get", *words, "--output=json"))


def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@dataclass
class Team:
    cli: Cli
    path: Path
    told: dict[str, Any] = field(default_factory=dict)

    def write(self, **more: Any) -> None:
        told = {
            "extends": "default",
            "engine": "kubernetes",
            "cluster": {"replicas": 2, "image": os.environ["DEPLOYER_TEST_KUBERNETES_IMAGE"]},
            "kubernetes": {"namespace": NAMESPACE, "size": "1g"},
            "server": {"ready_timeout": 600},
            "indexes": {"root/pypi": {"type": "mirror", "url": self.upstream}},
        }
        self.path.write_text(yaml.safe_dump({**told, **more}))

    @property
    def upstream(self) -> str:
        return self.cli.upstream

    def run(self, *words: str) -> dict[str, Any]:
        done = self.cli.run(*words, "--json", timeout=1200)
        assert done.code == 0, done.out + done.err
        return done.data

    @property
    def host(self) -> str:
        return str(found("service", self.cli.name)["spec"]["clusterIP"])

    @property
    def url(self) -> str:
        return f"http://{self.host}:3141"

    @property
    def index(self) -> str:
        return f"{self.url}/root/dev/+simple/"

    def pod(self, number: int) -> str:
        return f"{self.cli.name}-{number}"

    def uid(self, number: int) -> str:
        """The pod's identity; empty while there is none."""
        pods = found("pods")["items"]
        return next((one["metadata"]["uid"] for one in pods if one["metadata"]["name"] == self.pod(number)), "")

    def serves(self, number: int, *, but: str = "") -> bool:
        """Whether the member is ready in another pod than ``but``."""
        for one in found("pods")["items"]:
            if one["metadata"]["name"] == self.pod(number) and one["metadata"]["uid"] != but:
                return any(
                    state["type"] == "Ready" and state["status"] == "True"
                    for state in one["status"].get("conditions", [])
                )
        return False

    @contextmanager
    def loaded(self) -> Iterator[Counter[str]]:
        """Ask for pages that are known during a block, each by a new connection; what was answered, by its status."""
        seen: Counter[str] = Counter()
        over, host = threading.Event(), self.host

        def ask() -> None:
            while not over.is_set():
                connection = HTTPConnection(host, 3141, timeout=30)
                try:
                    connection.request("GET", "/root/dev/+simple/warm/", headers={"Connection": "close"})
                    answer = connection.getresponse()
                    answer.read()
                    seen[str(answer.status)] += 1
                except (OSError, HTTPException) as error:
                    seen[repr(error)] += 1
                finally:
                    connection.close()
                over.wait(0.05)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield seen
        finally:
            over.set()
            asking.join()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    if reason := why_not():
        (pytest.fail if "kubernetes" in REQUIRED else pytest.skip)(reason)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
    kubectl("apply", "--filename=-", stdin=json.dumps(namespace))
    home = tmp_path_factory.mktemp("kubernetes")
    path = home / "team.yaml"
    extra = {"DEPLOYER_PROFILE": str(path), "KUBECONFIG": os.environ["KUBECONFIG"]}
    wheels = [make_wheel(name, "1.0") for name in ("warm", "cold", "later")]
    with Upstream(wheels, host=NODE) as upstream:
        cli = Cli(home=home, engine="kubernetes", upstream=upstream.simple_url, extra=extra)
        made = Team(cli, path)
        made.write()
        try:
            made.told = made.run("up")
            yield made
        finally:
            cli.run("down", "--purge", "--yes", "--wait", "30", timeout=900)


def test_one_up_brings_all_members(team: Team) -> None:
    members = [(one["number"], one["role"], one["ready"]) for one in team.told["members"]]
    assert members == [(0, "primary", True), (1, "replica", True), (2, "replica", True)]
    again = team.run("up")
    assert (again["server"], again["changes"]) == ("unchanged", [])
    assert team.cli.run("plan").code == 0


def test_the_api_server_takes_each_object(team: Team) -> None:
    """Strictly, as a dry run: an unknown field is an error."""
    for form in ("kubernetes",):
        done = team.cli.run("render", "--format", form)
        assert done.code == 0, done.err
        kubectl(
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "-f-",
            stdin=done.out,
        )


@pytest.mark.parametrize("install", [pip, uv], ids=lambda install: install.__name__)
def test_clients_install_through_the_service(team: Team, install: Any) -> None:
    words = ("--trusted-host", team.host) if install is pip else ()
    done = install(team.index, *words, "warm==1.0")
    assert done.succeeded, done.told
    assert done.versions == {"warm-1.0"}


def test_a_pod_reaches_it_by_its_name(team: Team) -> None:
    """By the cluster's DNS, from a pod of the namespace."""
    script = f"import urllib.request as r; print(r.urlopen('http://{team.cli.name}.{NAMESPACE}.svc:3141/+live').read())"
    words = ("exec", team.pod(1), "--container=devpi", "--", "/opt/deployer/bin/python", "-c", script)
    assert "live" in kubectl(*words)


def test_an_upload_is_at_every_member_at_once(team: Team, tmp_path: Path) -> None:
    wheel = make_wheel("acme", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    password = json.loads(kubectl("get", "secret", team.cli.name, "--output=json"))["data"]["root-password"]
    words = ("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", f"{team.url}/root/dev/")
    done = subprocess.run(
        [sys.executable, "-m", "twine", *words, str(tmp_path / wheel.filename)],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "TWINE_USERNAME": "root",
            "TWINE_PASSWORD": base64.b64decode(password).decode(),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for _ in range(12):  # connections go to any member
        done = uv(team.index, "acme==1.0")
        assert done.succeeded, done.told


@pytest.mark.parametrize("number", [2, 1, 0])
def test_each_member_may_be_lost(team: Team, number: int) -> None:
    before = team.uid(number)
    with team.loaded() as seen:
        kubectl("delete", "pod", team.pod(number), "--grace-period=0", "--force")
        until(lambda: team.serves(number, but=before), f"{team.pod(number)} does not come back")
    # A request that the lost pod was answering, or that was sent to it before its node knew, may fail.
    assert seen["200"] > 10
    assert sum(seen.values()) - seen["200"] <= 3, seen


def test_a_change_replaces_the_primary_last_and_no_read_fails(team: Team) -> None:
    team.write(server={"ready_timeout": 600, "threads": 40})
    with team.loaded() as seen:
        assert team.run("up")["server"] == "changed"
    assert set(seen) == {"200"}
    pods = sorted(found("pods")["items"], key=lambda one: str(one["status"]["startTime"]))
    assert [one["metadata"]["name"] for one in pods] == [team.pod(2), team.pod(1), team.pod(0)]


def test_another_member_becomes_the_primary(team: Team) -> None:
    before = found("pvc", f"data-{team.pod(0)}")["metadata"]["uid"]
    with team.loaded() as seen:
        team.run("cluster", "promote", "2", "--yes")
    assert set(seen) == {"200"}
    assert found("configmap", team.cli.name)["data"]["primary"] == "2"
    until(lambda: team.serves(0), "the former primary does not follow")
    roles = {one["number"]: one["role"] for one in team.run("status")["members"]}
    assert roles == {0: "replica", 1: "replica", 2: "primary"}
    assert found("pvc", f"data-{team.pod(0)}")["metadata"]["uid"] != before
    done = uv(team.index, "acme==1.0", "cold==1.0")
    assert done.succeeded, done.told
    assert team.cli.run("plan").code == 0


def test_down_leaves_the_volumes_and_what_they_need(team: Team) -> None:
    team.run("down")
    kinds = "statefulset,service,pods,networkpolicy,poddisruptionbudget,ingress,secret,configmap,pvc"
    labels = f"--selector=app.kubernetes.io/instance={team.cli.name}"
    left = Counter(one["kind"] for one in found(kinds, labels)["items"])
    assert left == {"PersistentVolumeClaim": 3, "Secret": 1, "ConfigMap": 1}
    again = team.run("up")
    assert [one["role"] for one in again["members"]] == ["replica", "replica", "primary"]
    done = uv(team.index, "acme==1.0")
    assert done.succeeded, done.told
    assert team.cli.run("down", "--purge", "--yes", timeout=900).code == 0
    assert found(kinds, labels)["items"] == []
