"""The place Kubernetes, on a cluster in memory that answers kubectl's words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deployer.clusters.base import Identity, Wanted
from deployer.clusters.kubernetes import rollout
from deployer.clusters.kubernetes.kubectl import Kubectl, choose, failure, parsed
from deployer.clusters.kubernetes.place import Kubernetes
from deployer.clusters.kubernetes.reading import differences
from deployer.errors import ConflictError, EngineError, EngineUnreachable, NotReadyError, ProfileError, Refused
from deployer.host.runner import Completed
from deployer.profile.models import Profile
from deployer.spec import State
from tests.fake_kubernetes import CONFIG, FakeKubernetes

SOON = timedelta(seconds=5)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeKubernetes:
    monkeypatch.setattr(rollout, "_PERIOD", 0.01)
    return FakeKubernetes()


@pytest.fixture
def place(fake: FakeKubernetes) -> Kubernetes:
    return Kubernetes("devpi", Kubectl(choose("", "", fake), fake))


def wanted(replicas: int = 2, identity: Identity | None = None, **keys: Any) -> Wanted:
    told = {"engine": "kubernetes", "cluster": {"replicas": replicas}, **keys}
    profile = Profile.model_validate(told)
    return Wanted(
        name="devpi", profile=profile, profile_name="team", image="localhost/devpi:1", identity=identity or Identity()
    )


def silent(line: str) -> None:
    """For who listens to no line."""


def test_up_twice_changes_nothing(place: Kubernetes, fake: FakeKubernetes) -> None:
    assert place.identity() is None
    assert place.members() == ()
    assert "Secret devpi: + made" in place.differences(wanted())
    assert "StatefulSet devpi: + made" in place.differences(wanted())
    assert place.apply(wanted(), silent)
    assert place.identity() == Identity()
    place.remember(Identity(uuid="1" * 32))
    known = wanted(identity=place.identity())
    assert place.differences(known) == ()
    password = place.password().reveal()
    assert not place.apply(known, silent)
    assert place.password().reveal() == password
    assert [(member.number, member.state) for member in place.members()] == [(n, State.RUNNING) for n in range(3)]
    assert fake.deleted == []


def test_no_secret_is_on_a_command_line(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    password = place.password().reveal()
    assert any(password.encode() in stdin for stdin in fake.stdins)
    assert not any(password in word for argv in fake.argvs for word in argv)


def test_the_controller_replaces_pods_while_the_primary_is_0(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    lines: list[str] = []
    assert place.apply(wanted(server={"threads": 20}), lines.append)
    assert fake.deleted == ["devpi-2", "devpi-1", "devpi-0"]


def test_another_primary_comes_last_in_an_update(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(identity=Identity(primary=1)), silent)
    assert fake.objects["StatefulSet", "devpi"]["spec"]["updateStrategy"] == {"type": "OnDelete"}
    lines: list[str] = []
    assert place.apply(wanted(identity=Identity(primary=1), server={"threads": 20}), lines.append)
    assert fake.deleted == ["devpi-2", "devpi-0", "devpi-1"]
    assert lines[-3:] == ["devpi-2: replaced", "devpi-0: replaced", "devpi-1: replaced"]


@pytest.mark.parametrize("promoted", [1, 2])
def test_a_promotion_begins_with_the_new_primary(place: Kubernetes, fake: FakeKubernetes, promoted: int) -> None:
    place.apply(wanted(), silent)
    place.stop(0, timeout=SOON)
    assert place.members()[0].state is State.STOPPED
    place.stop(0, timeout=SOON)
    assert fake.deleted == ["devpi-0"]
    place.remember(Identity(primary=promoted, uuid="1"))
    assert place.apply(wanted(identity=place.identity()), silent)
    other = 3 - promoted
    assert fake.deleted == ["devpi-0", f"devpi-{promoted}", f"devpi-{other}"]
    assert place.members()[0].state is State.STOPPED  # an apply does not take the fence away
    assert "renew 0" in place.members()[0].why
    before = fake.objects["PersistentVolumeClaim", "data-devpi-0"]["metadata"]["uid"]
    place.renew(0)
    assert place.members()[0].state is State.RUNNING
    assert fake.objects["PersistentVolumeClaim", "data-devpi-0"]["metadata"]["uid"] != before
    assert place.differences(wanted(identity=place.identity())) == ()


def test_back_to_0_does_not_wait_for_the_fenced_one(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(identity=Identity(primary=2, uuid="1")), silent)
    place.stop(2, timeout=SOON)
    place.remember(Identity(primary=0, uuid="1"))
    place.apply(wanted(identity=place.identity()), silent)
    assert "devpi-0" in fake.deleted
    place.renew(2)
    assert {member.state for member in place.members()} == {State.RUNNING}


def test_up_starts_what_was_stopped(place: Kubernetes, fake: FakeKubernetes) -> None:
    """A promotion that was interrupted after its fence is given up, or a replica that somebody stopped."""
    place.apply(wanted(), silent)
    for number in (0, 2):
        place.stop(number, timeout=SOON)
    assert place.differences(wanted()) == ("Pod devpi-0: + started", "Pod devpi-2: + started")
    assert place.apply(wanted(), silent)
    assert {member.state for member in place.members()} == {State.RUNNING}
    assert place.differences(wanted()) == ()


def test_the_primary_is_not_renewed(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    with pytest.raises(Refused, match="member 0 is the primary"):
        place.renew(0)
    assert fake.deleted == []


def test_a_pod_on_a_lost_node_is_not_fenced(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    fake.lost.add("devpi-0")
    with pytest.raises(EngineError, match="node-1 may not answer") as failed:
        place.stop(0, timeout=timedelta(seconds=0.2))
    assert "out-of-service" in failed.value.hint


def test_down_keeps_volumes_and_what_they_need(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(kubernetes={"host": "pypi.example.com"}), silent)
    password, claims = place.password(), tuple(f"data-devpi-{number}" for number in range(3))
    assert place.down(purging=False, on_line=silent) == claims
    assert {kind for kind, _ in fake.objects} == {"PersistentVolumeClaim", "Secret", "ConfigMap"}
    place.apply(wanted(), silent)
    assert place.password() == password
    assert place.down(purging=True, on_line=silent) == ()
    assert not fake.objects


def test_what_is_wanted_no_more_is_removed(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(kubernetes={"host": "pypi.example.com"}), silent)
    assert "Ingress devpi: - removed" in place.differences(wanted())
    assert place.apply(wanted(), silent)
    assert ("Ingress", "devpi") not in fake.objects


def test_a_smaller_cluster_keeps_the_volume(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(3), silent)
    place.apply(wanted(1), silent)
    assert [member.number for member in place.members()] == [0, 1]
    assert ("PersistentVolumeClaim", "data-devpi-3") in fake.objects


def test_objects_of_others_are_left_alone(place: Kubernetes, fake: FakeKubernetes) -> None:
    fake.objects["StatefulSet", "devpi"] = {"kind": "StatefulSet", "metadata": {"name": "devpi"}}
    for call in (lambda: place.apply(wanted(), silent), lambda: place.down(purging=True, on_line=silent)):
        with pytest.raises(ConflictError, match="is not deployer's"):
            call()


def test_a_volume_can_not_change(place: Kubernetes) -> None:
    place.apply(wanted(), silent)
    for keys in ({"size": "60g"}, {"storage_class": "fast"}):
        with pytest.raises(ConflictError, match=r"kubernetes\.s"):
            place.differences(wanted(kubernetes=keys))


def test_a_secret_of_the_user_needs_both_keys(fake: FakeKubernetes) -> None:
    place = Kubernetes("devpi", Kubectl(choose("", "", fake), fake), secret="own")
    own = wanted(kubernetes={"secret": "own"})
    with pytest.raises(ConflictError, match="there is no Secret own"):
        place.apply(own, silent)
    fake.objects["Secret", "own"] = {"kind": "Secret", "metadata": {"name": "own"}, "data": {"members-secret": "eA=="}}
    with pytest.raises(ConflictError, match="lacks root-password"):
        place.apply(own, silent)
    fake.objects["Secret", "own"]["data"]["root-password"] = "c2VjcmV0LXNlY3JldA=="
    assert place.apply(own, silent)
    assert place.password().reveal() == "secret-secret"
    place.down(purging=True, on_line=silent)
    assert list(fake.objects) == [("Secret", "own")]


def test_reach_is_the_primary_or_else_any_member(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    with place.reach() as url:
        assert url == "http://127.0.0.1:40001"
    assert "pod/devpi-0" in fake.argvs[-1]
    place.stop(0, timeout=SOON)
    with place.reach():
        assert "service/devpi" in fake.argvs[-1]


def test_exec_tells_a_failed_command_from_a_failed_kubectl(place: Kubernetes, fake: FakeKubernetes) -> None:
    fake.executed["devpi-0"] = (3, "", "no such thing\ncommand terminated with exit code 3\n")
    done = place.exec(0, ("member", "status"))
    assert (done.returncode, done.stderr) == (3, "no such thing\n")
    assert fake.argvs[-1][-3:] == ("status", "--serverdir", "/data/server")
    fake.executed["devpi-0"] = (1, "", 'Error from server (NotFound): pods "devpi-0" not found\n')
    with pytest.raises(EngineError, match="not found"):
        place.exec(0, ("member", "status"))


def test_logs(place: Kubernetes, fake: FakeKubernetes) -> None:
    assert list(place.logs(1, follow=True, since="10m", tail=5)) == ["first", "second"]
    words = fake.argvs[-1]
    assert {"devpi-1", "--follow", "--tail=5"} <= set(words)
    assert any(word.startswith("--since-time=") and word.endswith("Z") for word in words)


def context(name: str, **keys: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": name, **keys}}


def test_context_and_namespace_are_never_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = FakeKubernetes({"contexts": [context("a"), context("b", namespace="own")], "current-context": "a"})
    with pytest.raises(ProfileError, match="2 contexts") as failed:
        choose("", "pypi", two)
    assert failed.value.hint == "set kubernetes.context: a, b"
    with pytest.raises(ProfileError, match="has no context c"):
        choose("c", "pypi", two)
    with pytest.raises(ProfileError, match="names a namespace"):
        choose("a", "", two)
    assert choose("b", "", two).namespace == "own"
    assert choose("b", "pypi", two).words == ("kubectl", "--context=b", "--namespace=pypi")
    assert choose("", "pypi", FakeKubernetes(CONFIG)).context == "test"
    token = tmp_path / "namespace"
    with pytest.raises(ProfileError, match="no kubeconfig"):
        choose("", "", FakeKubernetes({}), in_pod=token)
    token.write_text("ci")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert choose("", "", FakeKubernetes({}), in_pod=token).words == ("kubectl", "--namespace=ci")


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        (
            "The connection to the server x was refused - did you specify the right host or port?",
            EngineUnreachable,
            "info",
        ),
        ("Unable to connect to the server: dial tcp: lookup x: no such host", EngineUnreachable, "cluster-info"),
        ('Error from server (NotFound): namespaces "pypi" not found', EngineError, "kubectl create namespace pypi"),
        ('Error from server (Forbidden): pods is forbidden: User "x" cannot list', EngineError, "auth can-i"),
        ("error: You must be logged in to the server (Unauthorized)", EngineError, "credentials"),
        (
            'error: resource mapping not found: no matches for kind "ServiceMonitor" in version "x"',
            EngineError,
            "install",
        ),
    ],
)
def test_failures_have_a_cure(said: str, kind: type[EngineError], hint: str) -> None:
    found = failure(Completed(argv=("kubectl", "--context=x", "get"), returncode=1, stdout="", stderr=said))
    assert type(found) is kind
    assert hint in found.hint


def test_a_server_that_keeps_failing_ends_the_wait(
    place: Kubernetes, fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.apply(wanted(identity=Identity(primary=1)), silent)
    monkeypatch.setattr(rollout, "_FAILING", timedelta(seconds=0.05))
    made = fake._pod

    def failing(number: int) -> None:
        made(number)
        pod = fake.objects["Pod", f"devpi-{number}"]
        last = {"terminated": {"exitCode": 11, "reason": "Error"}}
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        pod["status"]["containerStatuses"] = [{"name": "devpi", "state": waiting, "lastState": last}]
        pod["status"]["conditions"] = []

    monkeypatch.setattr(fake, "_pod", failing)
    with pytest.raises(NotReadyError, match=r"devpi-2 is not in sync.*exit code 11") as failed:
        place.apply(wanted(identity=Identity(primary=1), server={"threads": 20}), silent)
    assert failed.value.hint == "deployer logs --member 2"


def test_a_pod_says_why_it_does_not_run(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    status: dict[str, Any] = fake.objects["Pod", "devpi-1"]["status"]
    status.clear()
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    status["conditions"] = [unscheduled]
    assert place.members()[1].why == "Unschedulable: 0/1 nodes"
    waiting = {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}
    status["initContainerStatuses"] = [{"name": "fence", "state": waiting}]
    assert place.members()[1].why == "ErrImageNeverPull: no image"
    del fake.objects["Pod", "devpi-1"]
    assert place.members()[1].why == "it has no pod"


def test_a_pod_that_passes_the_fence_is_not_stopped(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    status: dict[str, Any] = fake.objects["Pod", "devpi-1"]["status"]
    status["initContainerStatuses"] = [{"name": "fence", "state": {"running": {}}}]
    status["containerStatuses"] = [{"name": "devpi", "state": {"waiting": {"reason": "PodInitializing"}}}]
    status["conditions"] = []
    assert (place.members()[1].state, place.members()[1].why) == (State.CREATED, "PodInitializing")
    place.stop(1, timeout=SOON)
    assert place.members()[1].state is State.STOPPED


def test_a_member_is_fenced_when_it_has_said_so(
    place: Kubernetes, fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that is made with an older list passes the fence, and is deleted again."""
    place.apply(wanted(), silent)
    silences = ["", ""]
    monkeypatch.setattr(fake, "_logs", lambda words, stdin: (silences.pop() if silences else "stopped by deployer", ""))
    place.stop(0, timeout=SOON)
    assert silences == []


def test_differences_of_kubectl() -> None:
    text = (
        "diff -u -N /tmp/LIVE-1/apps.v1.StatefulSet.pypi.devpi.a /tmp/MERGED-2/apps.v1.StatefulSet.pypi.devpi.a\n"
        "--- /tmp/LIVE-1/a\n+++ /tmp/MERGED-2/a\n@@ -1,4 +1,4 @@\n"
        "-  generation: 1\n+  generation: 2\n   x: 1\n-    image: a\n"
        "+    image: b\n"
        "diff -u -N /tmp/LIVE-1/v1.Service.pypi.devpi /tmp/MERGED-2/v1.Service.pypi.devpi\n"
        "@@ -0,0 +1,9 @@\n+kind: Service\n"
    )
    assert differences(text) == (
        "StatefulSet devpi.a: - image: a",
        "StatefulSet devpi.a: + image: b",
        "Service devpi: + made",
    )


def test_a_bad_config_map_has_its_cure(place: Kubernetes, fake: FakeKubernetes) -> None:
    place.apply(wanted(), silent)
    fake.objects["ConfigMap", "devpi"]["data"] = {}
    with pytest.raises(EngineError, match="does not say which member") as failed:
        place.identity()
    assert json.loads(failed.value.hint.split("'")[1]) == {"data": {"primary": "0"}}


def test_a_name_that_no_object_can_have(place: Kubernetes) -> None:
    from deployer.errors import UsageError

    with pytest.raises(UsageError, match="team_a can't be the name"):
        place.differences(replace(wanted(), name="team_a"))


@pytest.mark.parametrize("answer", ['{"data": {"root-password": "cGFzc3dvcmQ="}', '["cGFzc3dvcmQ="]', ""])
def test_an_error_shows_nothing_of_a_secret_that_breaks_off(answer: str) -> None:
    with pytest.raises(EngineError) as told:
        parsed(answer)
    assert "cGFzc" not in str(told.value) + told.value.message + told.value.hint
