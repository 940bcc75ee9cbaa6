"""A cluster that lives in memory and answers kubectl's words: objects, and a controller of StatefulSets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployer.host.runner import Completed, Runner
from deployer.protocol import MemberStatus

CONFIG = {
    "contexts": [{"name": "test", "context": {"cluster": "test", "namespace": "pypi"}}],
    "current-context": "test",
}
UUID = "1" * 32
KINDS = {"pvc": "PersistentVolumeClaim", "pods": "Pod"}


class FakeKubernetes(Runner):
    """Stands for the runner. ``objects``: by kind and name. ``argvs``: what was asked, ``stdins`` beside it.

    ``lost``: names of pods whose node does not answer: they are deleted, and do not end.
    """

    def __init__(self, config: Mapping[str, Any] = CONFIG) -> None:
        super().__init__()
        self.config = config
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.argvs: list[tuple[str, ...]] = []
        self.stdins: list[bytes] = []
        self.lost: set[str] = set()
        self.executed: dict[str, tuple[int, str, str]] = {}
        self.fails: dict[str, str] = {}
        """Errors by the verb that they are the answer to."""
        self.deleted: list[str] = []
        """Pods, in the order in which they were deleted."""
        self._made = 0
        self.name = "devpi"
        """Of the StatefulSet."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Completed:
        self.argvs.append(tuple(argv))
        self.stdins.append(stdin)
        assert argv[0] == "kubectl"
        if argv[1:3] == ("config", "view"):
            return self._done(argv, json.dumps(self.config))
        assert argv[1:3] == ("--context=test", "--namespace=pypi"), argv
        words = [word for word in argv[3:] if not word.startswith("--request-timeout")]
        if words[0] in self.fails:
            return self._done(argv, "", self.fails[words[0]])
        verb: Callable[[list[str], bytes], tuple[str, str] | Completed] = getattr(
            self, f"_{words[0].replace('-', '_')}"
        )
        answer = verb(words[1:], stdin)
        return answer if isinstance(answer, Completed) else self._done(argv, *answer)

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        self.argvs.append(tuple(argv))
        tail = next((int(word.removeprefix("--tail=")) for word in argv if word.startswith("--tail=")), 2)
        yield from ("first", "second")[-tail:]

    @contextmanager
    def beside(self, argv: Sequence[str]) -> Iterator[Iterator[str]]:
        self.argvs.append(tuple(argv))
        yield iter(["Forwarding from 127.0.0.1:40001 -> 3141", "Handling connection for 40001"])

    @staticmethod
    def _done(argv: Sequence[str], out: str, error: str = "", code: int | None = None) -> Completed:
        return Completed(
            argv=tuple(argv),
            returncode=bool(error) if code is None else code,
            stdout=out,
            stderr=error and error + "\n",
        )

    def _version(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return json.dumps({"serverVersion": {"gitVersion": "v1.34.4"}}), ""

    def _api_resources(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return "servicemonitors.monitoring.coreos.com\n", ""

    def _get(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        kinds = words[0].split(",")
        if words[0] == "namespace":
            return words[1], ""
        if words[1].startswith("--selector="):
            labels = dict(pair.split("=") for pair in words[1].removeprefix("--selector=").split(","))
            named = {KINDS.get(kind, kind) for kind in kinds}
            found = [one for (kind, _), one in self.objects.items() if kind in named and self._has(one, labels)]
            return json.dumps({"items": found}), ""
        one = next(
            (one for (kind, name), one in self.objects.items() if kind.lower() == kinds[0] and name == words[1]), None
        )
        if one is None:
            return "", f'Error from server (NotFound): {kinds[0]}s "{words[1]}" not found'
        return json.dumps(one), ""

    @staticmethod
    def _has(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
        return labels.items() <= (one["metadata"].get("labels") or {}).items()

    def _merged(self, stdin: bytes) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
        """What there is, and what there would be: fields that another manager owns stay."""
        for wanted in json.loads(stdin)["items"]:
            there = self.objects.get((wanted["kind"], wanted["metadata"]["name"]))
            made = json.loads(json.dumps(wanted))
            if there is not None and made["kind"] == "ConfigMap":
                made["data"] = {
                    **{key: text for key, text in there["data"].items() if key in ("stopped", "former")},
                    **made["data"],
                }
            yield there, made

    def _diff(self, words: list[str], stdin: bytes) -> Completed:
        assert "--server-side" in words and "--field-manager=deployer" in words
        lines = []
        for there, made in self._merged(stdin):
            bare = {key: value for key, value in (there or {}).items() if key != "status"}
            if bare.get("metadata"):
                bare["metadata"] = {key: value for key, value in bare["metadata"].items() if key != "generation"}
            if bare != made:
                file = f"v1.{made['kind']}.pypi.{made['metadata']['name']}"
                hunk = "@@ -0,0 +1,2 @@" if there is None else "@@ -1,2 +1,2 @@"
                lines += [f"diff -u -N /tmp/LIVE-1/{file} /tmp/MERGED-2/{file}", "--- a", "+++ b", hunk]
                lines += ["-  generation: 1", "+  generation: 2", "-  x: 1", "+  x: 2"]
        return self._done(("kubectl", "diff"), "\n".join(lines), code=int(bool(lines)))

    def _apply(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        assert "--server-side" in words and "--field-manager=deployer" in words
        said = []
        for there, made in list(self._merged(stdin)):
            key = made["kind"], made["metadata"]["name"]
            self.objects[key] = made
            said.append(f"{key[0].lower()}/{key[1]} serverside-applied")
            if key[0] == "StatefulSet":
                self.name = key[1]
                self._controlled(there, made)
        return "\n".join(said), ""

    def _controlled(self, there: Mapping[str, Any] | None, made: dict[str, Any]) -> None:
        before = there["metadata"]["generation"] if there else 0
        changed = there is None or there["spec"]["template"] != made["spec"]["template"]
        old = there["status"]["updateRevision"] if there else ""
        revision = f"{made['metadata']['name']}-r{before + 1}" if changed else old
        made["metadata"]["generation"] = before + 1
        made["status"] = {"observedGeneration": before + 1, "updateRevision": revision}
        size = made["spec"]["replicas"]
        for number in range(size):
            self._pod(number)
        for number in range(size, 100):
            self.objects.pop(("Pod", f"{self.name}-{number}"), None)
        if changed and made["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            for number in reversed(range(size)):
                if (
                    self.objects["Pod", f"{self.name}-{number}"]["metadata"]["labels"]["controller-revision-hash"]
                    != revision
                ):
                    self._end(f"{self.name}-{number}")

    def _pod(self, number: int) -> None:
        """Make a pod and its claim, unless they are there."""
        spec, name = self.objects["StatefulSet", self.name], f"{self.name}-{number}"
        template = spec["spec"]["template"]
        if ("Pod", name) in self.objects:
            return
        claim = f"data-{name}"
        labels = template["metadata"]["labels"]
        self._made += 1
        uid = f"uid-{self._made}"
        self.objects.setdefault(
            ("PersistentVolumeClaim", claim),
            {"kind": "PersistentVolumeClaim", "metadata": {"name": claim, "uid": uid, "labels": labels}},
        )
        held = str(number) in self.objects["ConfigMap", self.name]["data"].get("stopped", "").split()
        waiting = {"name": "devpi", "state": {"waiting": {"reason": "PodInitializing"}}}
        running = {"name": "devpi", "state": {"running": {}}}
        status = {
            "containerStatuses": [waiting if held else running],
            "initContainerStatuses": [{"name": "fence", "state": {"running": {}} if held else {"terminated": {}}}],
            "conditions": [{"type": "Ready", "status": "False" if held else "True"}],
        }
        self.objects["Pod", name] = {
            "kind": "Pod",
            "metadata": {
                "name": name,
                "uid": uid,
                "labels": {**labels, "controller-revision-hash": spec["status"]["updateRevision"]},
                "annotations": template["metadata"]["annotations"],
            },
            "spec": {**template["spec"], "nodeName": "node-1"},
            "status": status,
        }

    def _end(self, name: str) -> None:
        self.deleted.append(name)
        if name in self.lost:
            self.objects["Pod", name]["metadata"]["deletionTimestamp"] = "now"
            return
        self.objects.pop(("Pod", name), None)
        claim = self.objects.get(("PersistentVolumeClaim", f"data-{name}"), {"metadata": {}})
        if claim["metadata"].get("deletionTimestamp"):
            del self.objects["PersistentVolumeClaim", f"data-{name}"]
        if ("StatefulSet", self.name) in self.objects:
            self._pod(int(name.rpartition("-")[2]))

    def _create(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        import base64

        made = json.loads(stdin)
        text = made.pop("stringData")
        made["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
        self.objects[made["kind"], made["metadata"]["name"]] = made
        return "created", ""

    def _delete(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        kind, name = words[0], words[1]
        if kind == "pod":
            if ("Pod", name) in self.objects:
                self._end(name)
            return "deleted", ""
        found = next(
            (key for key in self.objects if key[0].lower() == KINDS.get(kind, kind).lower() and key[1] == name), None
        )
        if kind == "pvc" and found and ("Pod", name.removeprefix("data-")) in self.objects:
            self.objects[found]["metadata"]["deletionTimestamp"] = "now"  # it is in use
        elif found:
            del self.objects[found]
        if kind == "StatefulSet":
            for key in [key for key in self.objects if key[0] == "Pod"]:
                del self.objects[key]
        return f"{kind} {name} deleted", ""

    def _patch(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        patch = json.loads(next(word for word in words if word.startswith("--patch=")).removeprefix("--patch="))
        self.objects["ConfigMap", words[1]]["data"].update(patch["data"])
        return "patched", ""

    def _logs(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        number = words[0].rpartition("-")[2]
        held = number in self.objects["ConfigMap", self.name]["data"].get("stopped", "").split()
        return "stopped by deployer" if held and "--container=fence" in words else "", ""

    def _exec(self, words: list[str], stdin: bytes) -> Completed:
        pod = next(word for word in words if word.startswith(f"{self.name}-"))
        code, out, error = self.executed.get(pod) or self._status(pod)
        return Completed(argv=("kubectl", "exec"), returncode=code, stdout=out, stderr=error)

    def _status(self, pod: str) -> tuple[int, str, str]:
        """What ``member status`` prints in a pod."""
        if ("Pod", pod) not in self.objects:
            return 1, "", f'Error from server (NotFound): pods "{pod}" not found\n'
        number = pod.rpartition("-")[2]
        primary = number == self.objects["ConfigMap", self.name]["data"]["primary"]
        status = MemberStatus(
            number=int(number),
            role="primary" if primary else "replica",
            uuid=UUID,
            serial=2,
            primary_serial=2,
            lag_seconds=0.0,
            synced=True,
            files_in_sync=True,
            files_missing=0,
            errors=(),
            version="1",
            server_version="6.20",
            last_contact_seconds=None if primary else 0.1,
            primary_answers=True,
        )
        return 0, json.dumps(status.json), ""
