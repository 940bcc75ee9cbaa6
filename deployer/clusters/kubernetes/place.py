"""The place Kubernetes: it applies the manifests by kubectl, and remembers in its ConfigMap."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from deployer.clusters.base import Identity, Member, PlaceName, Wanted
from deployer.clusters.kubernetes import reading
from deployer.clusters.kubernetes.forward import forwarded
from deployer.clusters.kubernetes.kubectl import FIELD_MANAGER, TIMEOUT, Kubectl, checked, failure, parsed
from deployer.clusters.kubernetes.manifests import KINDS, manifests
from deployer.clusters.kubernetes.manifests.checks import check, warnings
from deployer.clusters.kubernetes.manifests.names import (
    CONTAINER,
    DATA,
    FORMER,
    MANAGER,
    MEMBERS_SECRET,
    PORTS,
    PRIMARY,
    ROOT_PASSWORD,
    SERVER_DIR,
    STOPPED,
    UUID,
    Manifest,
    claim_name,
    labels,
    pod_name,
    selector,
)
from deployer.clusters.kubernetes.manifests.quantities import quantity
from deployer.clusters.kubernetes.rollout import Rollout, until
from deployer.errors import ConflictError, EngineError, Refused
from deployer.protocol import IMAGE_PYTHON
from deployer.secrets import Secret
from deployer.spec import ExecResult

_APPLY = ("--server-side", "--force-conflicts", FIELD_MANAGER)
"""The profile is what is wanted: it also wins over what somebody else has changed in our own objects."""
_EXEC = 300.0
"""Seconds of a command in a member."""
_FOR_FENCE = "--field-manager=deployer-fence"
"""Owns the list of stopped members, which an apply then leaves alone."""


class Kubernetes:
    """The members of the deployment ``name`` in one namespace.

    ``secret``: that of the user, if it is not ours. ``address``: for clients; empty where only pods reach the members.
    """

    place = PlaceName.KUBERNETES

    def __init__(self, name: str, kubectl: Kubectl, *, secret: str = "", address: str = "") -> None:
        self._name, self._kubectl, self._address = name, kubectl, address
        self._secret = secret or name

    def probe(self) -> str:
        """The version of the server, and the namespace."""
        found = parsed(self._kubectl.ask("version", "--output=json"))
        version = (found.get("serverVersion") or {}).get("gitVersion", "")
        self._kubectl.ask("get", "namespace", self._kubectl.target.namespace, "--output=name")
        return f"kubernetes {version.removeprefix('v')}, {self._kubectl.target}"

    def identity(self) -> Identity | None:
        found = self._config_map()
        return reading.identity(found) if found is not None else None

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        check(wanted)
        self._check_ours()
        new = () if self._kubectl.found("secret", self._secret) else (f"Secret {self._secret}: + made",)
        self._check_volumes(wanted)
        done = self._kubectl.run("diff", "--filename=-", *_APPLY, stdin=_text(manifests(wanted)), timeout=TIMEOUT)
        if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout):
            raise failure(done)
        removed = tuple(f"{kind} {name}: - removed" for kind, name in self._left_over(wanted))
        started = tuple(f"Pod {pod_name(self._name, number)}: + started" for number in self._resting(wanted))
        return (*new, *reading.differences(done.stdout), *removed, *started)

    def apply(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        for line in warnings(wanted):
            on_line(line)
        changed = bool(self.differences(wanted))
        self._make_secret(wanted)
        if changed:
            told = self._kubectl.ask("apply", "--filename=-", *_APPLY, stdin=_text(manifests(wanted)))
            for line in told.splitlines():
                on_line(line)
            for kind, name in self._left_over(wanted):
                on_line(self._kubectl.ask("delete", kind, name).strip())
        for number in self._resting(wanted):
            on_line(f"{pod_name(self._name, number)}: started")
            self.restart(number)
        replaced = self._rollout.replace(wanted, on_line)
        return changed or replaced

    def remember(self, identity: Identity) -> None:
        """The former primary is remembered, too: an apply leaves it stopped, since its data are no replica's."""
        before = self.identity()
        if before is not None and before.primary != identity.primary:
            self._patch("configmap", self._name, {"data": {FORMER: str(before.primary)}}, _FOR_FENCE)
        patch = {"data": {PRIMARY: str(identity.primary), UUID: identity.uuid}}
        self._patch("configmap", self._name, patch, FIELD_MANAGER)

    def members(self) -> tuple[Member, ...]:
        found = self._kubectl.found("statefulset", self._name)
        config_map = self._config_map() or {}
        size = found["spec"]["replicas"] if found is not None else 0
        found_members = reading.members(self._pods(), name=self._name, size=size, held=reading.stopped(config_map))
        former = reading.former(config_map)
        why = f"it has the data of the former primary: deployer cluster renew {former}"
        return tuple(replace(one, why=why) if one.number == former else one for one in found_members)

    def exec(self, number: int, words: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        argv = (*IMAGE_PYTHON, "-m", "deployer.server", *words, "--serverdir", SERVER_DIR)
        pod = pod_name(self._name, number)
        command = ("exec", *(("--stdin",) if stdin else ()), pod, f"--container={CONTAINER}", "--", *argv)
        done = self._kubectl.run(*command, stdin=stdin, timeout=_EXEC)
        stderr = reading.of_command(done.stderr) if done.returncode else done.stderr
        if stderr is None:
            raise failure(done)
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=stderr)

    def logs(self, number: int, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        words = ["logs", pod_name(self._name, number), f"--container={CONTAINER}"]
        if follow:
            words.append("--follow")
        if since:
            from deployer.engines.timestamps import moment

            words.append(f"--since-time={moment(since).isoformat(timespec='seconds').replace('+00:00', 'Z')}")
        if tail is not None:
            words.append(f"--tail={tail}")
        yield from self._kubectl.lines(*words)

    def restart(self, number: int) -> None:
        self._hold(number, held=False)
        self._rollout.delete(number, timeout=timedelta(minutes=10))

    def renew(self, number: int) -> None:
        identity = self.identity()
        if identity is not None and number == identity.primary:
            raise Refused(
                f"member {number} is the primary, and its data are the cluster's",
                hint="promote another one first: deployer cluster promote MEMBER",
            )
        if reading.former(self._config_map() or {}) == number:
            self._patch("configmap", self._name, {"data": {FORMER: ""}}, _FOR_FENCE)
        claim = claim_name(self._name, number)
        # The claim goes when its pod has gone; the next pod gets a new one.
        self._kubectl.run("delete", "pvc", claim, "--ignore-not-found", "--wait=false")
        self._hold(number, held=False)
        self._rollout.delete(number, timeout=timedelta(minutes=10))

    def stop(self, number: int, *, timeout: timedelta) -> None:
        """Fence a member: the ConfigMap names it as stopped, so each new pod of it waits before its server starts.

        Its present pod is deleted. A pod on a node that does not answer is not gone: it may run, and the fence is
        refused.
        """
        self._hold(number, held=True)
        self._rollout.fence(number, timeout=timeout)

    def _resting(self, wanted: Wanted) -> tuple[int, ...]:
        """The stopped members that an apply starts: all but the former primary."""
        config_map = self._config_map() or {}
        held = reading.stopped(config_map) - {reading.former(config_map)}
        return tuple(number for number in sorted(held) if number < wanted.size)

    def reach(self) -> AbstractContextManager[str]:
        """A port of this host's loopback that leads to the primary, or to any member while that one is not ready."""
        identity = self.identity()
        pod = next((one for one in self._pods() if identity is not None and one.number == identity.primary), None)
        target = f"pod/{pod.name}" if pod is not None and pod.ready else f"service/{self._name}"
        return forwarded(self._kubectl, target, PORTS["http"])

    def address(self) -> str:
        """That of the Ingress, or of the profile. The service's name is known to pods alone."""
        return self._address

    def https(self) -> None:
        return None

    def password(self) -> Secret:
        found = self._kubectl.found("secret", self._secret)
        text = ((found or {}).get("data") or {}).get(ROOT_PASSWORD, "")
        try:
            password = base64.b64decode(text, validate=True).decode().strip()
        except ValueError:
            password = ""
        if not password:
            raise ConflictError(
                f"root's password is not in the Secret {self._secret}", hint=f"give it the key {ROOT_PASSWORD}"
            )
        return Secret(password)

    def down(self, *, purging: bool, on_line: Callable[[str], None]) -> tuple[str, ...]:
        """The Secret and the ConfigMap stay with the volumes: without them, these can't be used again."""
        self._check_ours()
        kept = () if purging else ("ConfigMap",)
        for kind, name in self._ours():
            if kind not in kept:
                on_line(self._kubectl.ask("delete", kind, name, "--wait=true", timeout=600).strip())
        until(lambda: not self._pods(), timedelta(minutes=10), "pods are still being stopped")
        claims = self._kubectl.listed("pvc", _labels(self._name))
        names = tuple(sorted(one["metadata"]["name"] for one in claims))
        if not purging:
            return names
        for name in names:
            on_line(self._kubectl.ask("delete", "pvc", name, "--wait=true", timeout=600).strip())
        if self._secret == self._name:
            self._kubectl.ask("delete", "secret", self._name, "--ignore-not-found")
        return ()

    @property
    def _rollout(self) -> Rollout:
        return Rollout(self._name, self._kubectl, self._pods)

    def _config_map(self) -> dict[str, Any] | None:
        return self._kubectl.found("configmap", self._name)

    def _pods(self) -> tuple[reading.Pod, ...]:
        held = reading.stopped(self._config_map() or {})
        return reading.pods(self._kubectl.listed("pods", _labels(self._name)), self._name, held)

    def _ours(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of each object that has our label, and would be made again; the StatefulSet first."""
        kinds = [kind for kind in KINDS if kind != "ServiceMonitor" or self._has_monitors()]
        found = self._kubectl.listed(",".join(kinds), f"{_labels(self._name)},app.kubernetes.io/managed-by={MANAGER}")
        named = [(one["kind"], one["metadata"]["name"]) for one in found]
        return tuple(sorted(named, key=lambda one: (one[0] != "StatefulSet", one)))

    def _has_monitors(self) -> bool:
        words = ("api-resources", "--api-group=monitoring.coreos.com", "--output=name")
        return "servicemonitors" in self._kubectl.ask(*words)

    def _left_over(self, wanted: Wanted) -> tuple[tuple[str, str], ...]:
        """Objects of an earlier profile that are wanted no more."""
        named = {(one["kind"], one["metadata"]["name"]) for one in manifests(wanted)}
        return tuple(one for one in self._ours() if one not in named)

    def _check_ours(self) -> None:
        """Raise ConflictError where the name is taken by what is not deployer's."""
        for kind in ("statefulset", "configmap"):
            found = self._kubectl.found(kind, self._name)
            ours = (
                found is None or (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == MANAGER
            )
            if not ours:
                raise ConflictError(
                    f"the {kind} {self._name} in {self._kubectl.target} is not deployer's",
                    hint="choose another --name or kubernetes.namespace",
                )

    def _check_volumes(self, wanted: Wanted) -> None:
        """Raise ConflictError for what a StatefulSet can't change."""
        found = self._kubectl.found("statefulset", self._name)
        if found is None:
            return
        spec, settings = found["spec"]["volumeClaimTemplates"][0]["spec"], wanted.profile.kubernetes
        orphan = f"kubectl delete statefulset {self._name} --cascade=orphan"
        if (size := spec["resources"]["requests"]["storage"]) != quantity(settings.size):
            raise ConflictError(
                f"kubernetes.size: the volumes have {size}, and a StatefulSet can't change that",
                hint=f"enlarge each claim {DATA}-{self._name}-N with kubectl, then: {orphan}; deployer up",
            )
        if settings.storage_class not in ("", spec.get("storageClassName")):
            raise ConflictError(
                f"kubernetes.storage_class: the volumes have {spec.get('storageClassName')}, which can't be changed",
                hint="back up, then: deployer down --purge; deployer up; deployer restore",
            )

    def _make_secret(self, wanted: Wanted) -> None:
        """Make the Secret once. That of the user must be there, with both keys."""
        found = self._kubectl.found("secret", self._secret)
        if found is not None:
            missing = [key for key in (MEMBERS_SECRET, ROOT_PASSWORD) if not (found.get("data") or {}).get(key)]
            if missing:
                raise ConflictError(
                    f"the Secret {self._secret} lacks {missing[0]}", hint=f"give it the key {missing[0]}"
                )
            return
        if self._secret != self._name:
            raise ConflictError(
                f"kubernetes.secret: there is no Secret {self._secret} in {self._kubectl.target}",
                hint=f"make it with the keys {MEMBERS_SECRET} and {ROOT_PASSWORD}",
            )
        made = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "labels": labels(self._name)},
            "stringData": {MEMBERS_SECRET: secrets.token_hex(32), ROOT_PASSWORD: secrets.token_urlsafe(24)},
        }
        self._kubectl.ask("create", "--filename=-", FIELD_MANAGER, stdin=json.dumps(made).encode())

    def _hold(self, number: int, *, held: bool) -> None:
        """Have a member wait before its server starts, or not any more."""
        config_map = self._config_map()
        if config_map is None:
            raise EngineError(f"there is no ConfigMap {self._name} in {self._kubectl.target}", hint="deployer up")
        found = reading.stopped(config_map)
        numbers = sorted(found | {number} if held else found - {number})
        if set(numbers) != found:
            patch = {"data": {STOPPED: " ".join(map(str, numbers))}}
            self._patch("configmap", self._name, patch, _FOR_FENCE)

    def _patch(self, kind: str, name: str, patch: dict[str, Any], manager: str) -> None:
        done = self._kubectl.run("patch", kind, name, "--type=merge", manager, f"--patch={json.dumps(patch)}")
        checked(done)


def _labels(name: str) -> str:
    return ",".join(f"{key}={value}" for key, value in selector(name).items())


def _text(found: Sequence[Manifest]) -> bytes:
    """A list of objects as JSON, which kubectl reads from its standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(found)}).encode()
