"""Files for Kubernetes: their shape, what they may not do, and that each value comes back as it went in."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from deployer.clusters.base import Identity, Wanted
from deployer.clusters.kubernetes.formats import helm, kubernetes, kustomize
from deployer.clusters.kubernetes.manifests import KINDS, manifests
from deployer.clusters.kubernetes.manifests.checks import check, warnings
from deployer.clusters.kubernetes.manifests.words import command, literal
from deployer.errors import DeployerError
from deployer.profile.load import load
from deployer.profile.load.files import available
from deployer.profile.models import Profile
from tests.engines import REQUIRED
from tests.kubernetes_types import Types

FULL = {
    "cluster": {"replicas": 2, "write_wait": 1.5, "replica_upstream": False, "files_on_demand": ["root/pypi"]},
    "server": {
        "metrics": "127.0.0.1:9141",
        "memory": "512m",
        "cpus": 1.5,
        "stop_timeout": 20,
        "plugins": ["devpi-ldap==2.2.0"],
        "options": {"ldap-config": "/etc/ldap.yaml"},
    },
    "kubernetes": {
        "namespace": "pypi",
        "storage_class": "fast",
        "size": "100g",
        "host": "pypi.example.com",
        "tls_secret": "pypi-tls",
        "ingress_class": "nginx",
        "pull_secret": "registry",
        "secret": "pypi-secrets",
        "service_monitor": True,
    },
}


def wanted(told: Mapping[str, Any] | Profile, *, name: str = "devpi", identity: Identity | None = None) -> Wanted:
    profile = told if isinstance(told, Profile) else Profile.model_validate(told)
    image = profile.cluster.image or "localhost/deployer-devpi:6.20.3"
    return Wanted(name=name, profile=profile, profile_name="team", image=image, identity=identity or Identity())


def shipped(tmp: Path) -> Iterator[Wanted]:
    for profile in available(tmp):
        loaded = load(profile.name, user_dir=tmp).profile
        cluster = loaded.cluster.model_copy(update={"replicas": 2})
        yield wanted(loaded.model_copy(update={"engine": "kubernetes", "cluster": cluster}))


def of_kind(found: Wanted, kind: str) -> dict[str, Any]:
    return next(one for one in manifests(found) if one["kind"] == kind)


def pod(found: Wanted) -> dict[str, Any]:
    return dict(of_kind(found, "StatefulSet")["spec"]["template"]["spec"])


def filled(words: list[str], variables: Mapping[str, str]) -> list[str]:
    """What a container gets, by the rules of Kubernetes: $(NAME) is a variable, and $$ is a dollar."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return [re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", one, word) for word in words]


def rendered(template: str, values: Mapping[str, Any]) -> Any:
    """What Helm makes of a template that has nothing but our few expressions."""

    def one(match: re.Match[str]) -> str:
        text = match[1].strip()
        if text == '"{{"':
            return "{{"
        path = re.search(r"\.Values\.([A-Za-z.]+)", text)
        assert path is not None, text
        value: Any = values
        for key in path[1].split("."):
            value = value[key]
        if "add1" in text:
            value += 1
        elif "ternary" in text:
            value = "RollingUpdate" if value == 0 else "OnDelete"
        elif "toString" in text:
            value = str(value)
        elif "printf" in text:
            value = f"https://{value}"
        return json.dumps(value)

    return yaml.safe_load(re.sub(r'\{\{ ?((?:"\{\{"|[^{}])*?) ?\}\}', one, template))


def test_kubernetes(snapshot: SnapshotAssertion) -> None:
    assert kubernetes(wanted(FULL)) == snapshot


def test_helm_and_kustomize(snapshot: SnapshotAssertion) -> None:
    chart, base = helm(wanted(FULL)), kustomize(wanted(FULL))
    assert chart["values.yaml"] == snapshot
    assert chart["Chart.yaml"] == snapshot
    assert base["kustomization.yaml"] == snapshot


def test_each_shipped_profile_is_made_or_refused(tmp_path: Path) -> None:
    refused = []
    for found in shipped(tmp_path):
        try:
            check(found)
        except DeployerError as error:
            refused.append(error.message)
            assert error.hint
            continue
        documents = list(yaml.safe_load_all(kubernetes(found)))
        assert [one["kind"] for one in documents] == ["ConfigMap", "Service", *KINDS[1:-2]]
        assert documents == [json.loads(json.dumps(one)) for one in manifests(found)]
    assert refused == ["members on Kubernetes can't end with a job"]  # the profile ci


@pytest.fixture(scope="module")
def types() -> Types:
    """Those of Kubernetes 1.34: ``go mod download -json k8s.io/client-go@v0.34.4`` says where they are."""
    file = os.environ.get("DEPLOYER_TEST_KUBERNETES_TYPES", "")
    if not file:
        reason = "DEPLOYER_TEST_KUBERNETES_TYPES does not name the types of Kubernetes, a file of k8s.io/client-go"
        (pytest.fail if "kubernetes-types" in REQUIRED else pytest.skip)(reason)
    return Types(Path(file))


def test_kubernetes_knows_each_field(types: Types, tmp_path: Path) -> None:
    for found in (*shipped(tmp_path), wanted(FULL), wanted(FULL, identity=Identity(primary=2, uuid="1"))):
        for one in manifests(found):
            if one["kind"] != "ServiceMonitor":
                assert list(types.problems(one)) == []
    wrong = of_kind(wanted(FULL), "StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    wrong["spec"]["replicas"] = "3"
    assert list(types.problems(wrong)) == [
        "StatefulSet.spec.replicas: '3' is not numeric",
        "StatefulSet.spec.template.spec.containers[0].imagePolicy: no such field",
    ]


@pytest.mark.parametrize("told", [FULL, {"cluster": {"replicas": 1}}], ids=["full", "plain"])
def test_pods_are_restricted(told: Mapping[str, Any]) -> None:
    """Pod Security Standards, *restricted*; kubernetes.io/docs/concepts/security/pod-security-standards."""
    found = pod(wanted(told))
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["runAsUser"] > 0
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert found["automountServiceAccountToken"] is found["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & found.keys()
    assert all(set(one) - {"name"} <= {"emptyDir", "configMap", "secret"} for one in found["volumes"])
    for container in (*found["initContainers"], *found["containers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_probes_ask_the_right_questions() -> None:
    server = pod(wanted(FULL))["containers"][0]
    assert server["livenessProbe"]["httpGet"]["path"] == server["startupProbe"]["httpGet"]["path"] == "/+live"
    assert server["readinessProbe"]["httpGet"]["path"] == "/+ready"
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600


def test_a_known_uuid_restarts_no_member_and_another_primary_all() -> None:
    new, known, moved = (wanted(FULL, identity=one) for one in (Identity(), Identity(uuid="1"), Identity(primary=2)))
    assert of_kind(new, "StatefulSet") == of_kind(known, "StatefulSet")
    assert of_kind(known, "ConfigMap")["data"] == {"primary": "0", "uuid": "1"}
    template = of_kind(moved, "StatefulSet")["spec"]["template"]
    assert template != of_kind(new, "StatefulSet")["spec"]["template"]
    assert of_kind(new, "StatefulSet")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    assert of_kind(moved, "StatefulSet")["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_another_size_restarts_no_member() -> None:
    smaller, larger = (of_kind(wanted({**FULL, "cluster": {"replicas": n}}), "StatefulSet") for n in (1, 5))
    assert smaller["spec"]["template"] == larger["spec"]["template"]
    assert (smaller["spec"]["replicas"], larger["spec"]["replicas"]) == (2, 6)


def test_every_host_is_answered_unless_one_is_named() -> None:
    words = command(wanted({"cluster": {"replicas": 1}}))
    assert [after for word, after in pairwise(words) if word == "--allow-host"] == ["*"]
    found = filled(list(command(wanted(FULL))), {"MEMBER": "1", "NAMESPACE": "pypi", "PRIMARY": "0"})
    hosts = [after for word, after in pairwise(found) if word == "--allow-host"]
    assert hosts == ["devpi.pypi", "devpi.pypi.svc", "devpi.pypi.svc.cluster.local", "devpi-1.devpi-members"]
    assert found[found.index("--outside-url") + 1] == "https://pypi.example.com"
    assert found[found.index("--primary-url") + 1] == "http://devpi-0.devpi-members:3141"


@given(st.text())
def test_no_value_is_taken_for_a_variable(value: str) -> None:
    assert filled([literal(value)], {"MEMBER": "1", "PRIMARY": "0"}) == [value]


ODD = 'it\'s $(PRIMARY) $HOME {{ .Values.x }} }} {{{{ "x" # no: comment\\ - &a *b !c ü'


@pytest.mark.parametrize(
    "value", [ODD, "on", "1e3", "0o17", "~", "- a", "{{", "$$(PRIMARY)", "a: b", "---", "%x", "\u2028"]
)
def test_hostile_values_come_back(value: str) -> None:
    found = wanted({"cluster": {"replicas": 1}, "server": {"options": {"odd": value}}})
    words = next(one for one in yaml.safe_load_all(kubernetes(found)) if one["kind"] == "StatefulSet")
    args = words["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"odd={value}" in filled(args, {"PRIMARY": "0"})
    chart = helm(found)
    values = yaml.safe_load(chart["values.yaml"])
    for name, text in chart.items():
        if name.endswith(".yaml") and name.startswith("templates/"):
            made = rendered(text, values)
            expected = next(one for one in manifests(found) if f"{one['kind'].lower()}-" in name and _named(one, name))
            assert _without_nothing(made) == _without_nothing(json.loads(json.dumps(expected)))


def _named(one: Mapping[str, Any], name: str) -> bool:
    return name.endswith(f"-{one['metadata']['name']}.yaml") and name.startswith(f"templates/{one['kind'].lower()}-")


def _without_nothing(value: Any) -> Any:
    """Without keys that hold nothing: what Kubernetes makes of null, and of an empty list."""
    if isinstance(value, dict):
        return {key: _without_nothing(one) for key, one in value.items() if one not in (None, [])}
    return [_without_nothing(one) for one in value] if isinstance(value, list) else value


def test_the_chart_is_the_manifests() -> None:
    found = wanted(FULL, identity=Identity(primary=1, uuid="12e4"))
    chart = helm(found)
    values = yaml.safe_load(chart["values.yaml"])
    made = [
        rendered(text, values) for name, text in chart.items() if name.startswith("templates/") and "NOTES" not in name
    ]
    assert made == [json.loads(json.dumps(one)) for one in manifests(found)]
    assert rendered(chart["templates/statefulset-devpi.yaml"], {**values, "replicas": 5})["spec"]["replicas"] == 6


def test_kustomize_names_each_file() -> None:
    files = kustomize(wanted(FULL))
    base = yaml.safe_load(files["kustomization.yaml"])
    assert set(base["resources"]) == files.keys() - {"kustomization.yaml"}
    assert base["namespace"] == "pypi"


@pytest.mark.parametrize(
    "told",
    [
        {"image": {"ref": "example.com/devpi:1"}},
        {"network": {"tls": {"cert": "auto"}}},
        {"network": {"ca_file": "/etc/ca.pem"}},
        {"network": {"proxy": True}},
        {"server": {"lifetime": "job"}},
        {"server": {"option_files": {"ldap-config": {"file": "/etc/ldap.yaml"}}}},
        {"kubernetes": {"size": ""}},
        {"kubernetes": {"host": "Pypi.example.com"}},
        {"kubernetes": {"host": "*"}},
        {"kubernetes": {"tls_secret": "x"}},
        {"kubernetes": {"service_monitor": True}},
        {"kubernetes": {"secret": "a b"}},
        {"kubernetes": {"namespace": "--all"}},
    ],
    ids=lambda told: "-".join(key for section in told.values() for key in section),
)
def test_what_can_not_be_carried_is_refused(told: Mapping[str, Any]) -> None:
    with pytest.raises(DeployerError) as refused:
        check(wanted({"cluster": {"replicas": 1}, **told}))
    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_what_has_no_effect_is_said() -> None:
    assert warnings(wanted(FULL)) == ()
    assert (
        "network.mode, server.nofile: no effect"
        in warnings(wanted({"network": {"mode": "host"}, "server": {"nofile": 9}}))[0]
    )
    assert "default certificate" in warnings(wanted({"kubernetes": {"host": "pypi.example.com"}}))[0]


def test_kubectl_builds_the_kustomization(tmp_path: Path) -> None:
    from shutil import which

    if which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    for name, text in kustomize(wanted(FULL)).items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    assert {one["metadata"]["namespace"] for one in yaml.safe_load_all(done.stdout)} == {"pypi"}
