"""Run kubectl against one namespace of one cluster. Its failures become errors with a cure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer import protocol
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ProfileError
from deployer.host.runner import Completed, ProcessFailed, Runner

KUBECTL = "kubectl"
FIELD_MANAGER = "--field-manager=deployer"
TIMEOUT = 60.0
"""Seconds of one call that waits for nothing."""
_WAITS = 20
"""Seconds for one answer of the API server."""
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_UNREACHABLE = re.compile(
    r"unable to connect to the server|connection refused|was refused|no such host|i/o timeout|tls handshake"
    r"|context deadline exceeded|x509:|no route to host|connection reset|unexpected eof|etcdserver:",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"\(NotFound\)|not found$", re.MULTILINE)
_NO_NAMESPACE = re.compile(r'namespaces? "[^"]*" not found')
_DENIED = re.compile(r"\(Forbidden\)| is forbidden: ")
_UNKNOWN_USER = re.compile(r"\(Unauthorized\)|must be logged in|getting credentials", re.IGNORECASE)
_UNKNOWN_KIND = re.compile(r'no matches for kind "([A-Za-z]+)"|doesn\'t have a resource type "([a-z.]+)"')


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where kubectl works. ``context``: empty in a pod, whose service account leads to its cluster."""

    context: str
    namespace: str

    @property
    def words(self) -> tuple[str, ...]:
        chosen = (f"--context={self.context}",) if self.context else ()
        return (KUBECTL, *chosen, f"--namespace={self.namespace}")

    def __str__(self) -> str:
        return f"namespace {self.namespace}" + (f" of {self.context}" if self.context else "")


def choose(context: str, namespace: str, runner: Runner, *, in_pod: Path = _IN_POD) -> Target:
    """The context and the namespace of the profile, where they leave no choice. Raises ProfileError."""
    config = parsed(checked(runner.run((KUBECTL, "config", "view", "--output=json"), timeout=TIMEOUT)).stdout)
    contexts = {one["name"]: one.get("context") or {} for one in config.get("contexts") or ()}
    if not context and not contexts and in_pod.is_file() and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Target(context="", namespace=namespace or in_pod.read_text(encoding="utf-8").strip())
    if not contexts:
        raise ProfileError("no kubeconfig names a cluster", hint="set KUBECONFIG to the file of your cluster")
    names = ", ".join(sorted(contexts))
    if context and context not in contexts:
        raise ProfileError(f"kubernetes.context: the kubeconfig has no context {context}", hint=f"choose from: {names}")
    if not context and len(contexts) > 1:
        raise ProfileError(
            f"the kubeconfig has {len(contexts)} contexts, and the profile names none",
            hint=f"set kubernetes.context: {names}",
        )
    chosen = context or next(iter(contexts))
    own = namespace or contexts[chosen].get("namespace", "")
    if not own:
        raise ProfileError(
            f"neither the profile nor the context {chosen} names a namespace", hint="set kubernetes.namespace"
        )
    return Target(context=chosen, namespace=own)


def parsed(text: str) -> dict[str, Any]:
    """An object of JSON. Raises EngineError."""
    try:
        found = protocol.parsed(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        # Not the text: it may be the beginning of a Secret.
        raise EngineError("kubectl did not answer with a JSON object", hint="check: kubectl version")
    return found


def checked(done: Completed) -> Completed:
    """What kubectl answered. Raises an EngineError if it failed."""
    if done.returncode:
        raise failure(done)
    return done


def failure(done: Completed) -> EngineError | ConflictError:
    """The error for a failed call."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = (
        re.sub(r"^(error|Error from server( \(\w+\))?): ", "", lines[-1]) if lines else f"exit code {done.returncode}"
    )
    verb = next((word for word in done.argv[1:] if not word.startswith("-")), "")
    details = tuple(lines[:-1][-5:])
    message = f"kubectl {verb}: {said}"
    if _UNREACHABLE.search(done.stderr):
        return EngineUnreachable(message, hint="check: kubectl cluster-info", details=details)
    if found := _UNKNOWN_KIND.search(done.stderr):
        kind = found[1] or found[2]
        return EngineError(f"this cluster has no {kind}", hint=f"install what provides {kind}", details=details)
    if missing := _NO_NAMESPACE.search(done.stderr):
        name = missing[0].split('"')[1]
        return EngineError(f"there is no namespace {name}", hint=f"kubectl create namespace {name}", details=details)
    if _UNKNOWN_USER.search(done.stderr):
        return EngineError(message, hint="renew the credentials in the kubeconfig", details=details)
    if _DENIED.search(done.stderr):
        return EngineError(message, hint="ask for this right: kubectl auth can-i --list", details=details)
    return EngineError(message, hint="", details=details)


class Kubectl:
    """kubectl with a target."""

    def __init__(self, target: Target, runner: Runner | None = None) -> None:
        self.target = target
        self._runner = runner or Runner()

    def run(self, *words: str, stdin: bytes = b"", timeout: float = TIMEOUT) -> Completed:
        """Run it to its end, whatever its exit code."""
        return self._runner.run(self._words(words), stdin=stdin, timeout=timeout)

    def ask(self, *words: str, stdin: bytes = b"", timeout: float = TIMEOUT) -> str:
        """Its output. Raises EngineError."""
        return checked(self.run(*words, f"--request-timeout={_WAITS}s", stdin=stdin, timeout=timeout)).stdout

    def found(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None if it is not there. Raises EngineError."""
        words = ("get", kind, name, "--output=json", f"--request-timeout={_WAITS}s")
        done = self.run(*words)
        if done.returncode and _ABSENT.search(done.stderr) and not _NO_NAMESPACE.search(done.stderr):
            return None
        return parsed(checked(done).stdout)

    def listed(self, kinds: str, selector: str) -> list[dict[str, Any]]:
        """The objects of these kinds with these labels. Raises EngineError."""
        text = self.ask("get", kinds, f"--selector={selector}", "--output=json")
        return list(parsed(text).get("items") or ())

    def lines(self, *words: str) -> Iterator[str]:
        """Its output, line by line, as it comes. Raises EngineError after the last line if it failed."""
        try:
            yield from self._runner.stream(self._words(words))
        except ProcessFailed as failed:
            raise EngineError(f"kubectl {words[0]} ended with exit code {failed.returncode}", hint="") from None

    def beside(self, *words: str) -> AbstractContextManager[Iterator[str]]:
        """Run it beside a block, which gets its lines. Raises EngineUnreachable."""
        return self._runner.beside(self._words(words))

    def _words(self, words: Sequence[str]) -> tuple[str, ...]:
        return (*self.target.words, *words)
