"""Containers of nerdctl, docker and podman, through their command lines. The dialects hold their differences."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from deployer.engines import proc
from deployer.engines.answers import at, container_from
from deployer.engines.argv_images import ArgvImages
from deployer.engines.client import Client
from deployer.engines.dialects import Dialect, Nature
from deployer.engines.failures import silent
from deployer.engines.ports import holder_of
from deployer.engines.remote import far
from deployer.engines.shapes import shaped, texts
from deployer.errors import ConflictError, EngineError, EngineUnreachable
from deployer.host.background import meanwhile
from deployer.host.runner import Completed, ProcessFailed, Runner
from deployer.spec import (
    LABEL_NAME,
    LABEL_RESTART,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    State,
    Volume,
)

PROBE_TIMEOUT = 5.0
RUN_TIMEOUT = 60.0
REST_TIMEOUT = 30.0


class ArgvEngine:
    """Implements :class:`deployer.engines.base.Engine` by running a binary."""

    def __init__(self, dialect: Dialect, *, runner: Runner | None = None) -> None:
        self._dialect = dialect
        self._runner = runner or Runner()
        self._client = Client(dialect, self._runner)
        self.images = ArgvImages(dialect, self._client)

    @property
    def name(self) -> EngineName:
        return self._dialect.name

    @property
    def _elsewhere(self) -> bool:
        """Whether the environment may lead to an engine on another host."""
        return any(name in os.environ for name in self._dialect.elsewhere)

    # Queries

    def probe(self) -> EngineInfo:
        path = shutil.which(self.name)
        if path is None:
            raise EngineUnreachable(
                f"{self.name} is not installed (not on PATH)",
                hint=f"{self._dialect.install}, or --engine process, which needs none",
            )
        asked = meanwhile(self._nature)
        done = self._client.call(*self._dialect.version, timeout=PROBE_TIMEOUT)
        if done.returncode:
            raise self._client.failure(done)
        told = answer = self._client.json(done)
        for key in self._dialect.version_key:
            answer = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(answer, str):
            raise self._unnamed(path)
        nature = asked.result()
        return EngineInfo(
            name=self.name,
            version=answer.removeprefix("v"),
            rootless=nature.rootless,
            how=path,
            unheld=nature.unheld,
            unkept=self._dialect.unkept(told),
            keeps_from=self._dialect.keeps_from,
            injects=self._dialect.injects(os.environ),
            remote=self._remote(told),
        )

    def _unnamed(self, path: str) -> EngineUnreachable:
        """The error of a client that tells no version of its engine: podman's wrapper that is called docker."""
        program = self._client.call("--version").stdout.partition(" version ")[0].strip()
        if program and program.lower() in set(EngineName) - {self.name}:
            return EngineUnreachable(f"{path} runs {program}, not {self.name}", hint=f"--engine {program}")
        return silent("it tells no version", dialect=self._dialect, address="")

    def _remote(self, told: object) -> str:
        """The address of an engine on another host; empty for one of this host."""
        if address := os.environ.get(self._dialect.address, ""):
            return far(address)
        context = at(told, *self._dialect.context) if self._dialect.context else None
        if context in (None, "", "default") or not self._dialect.endpoint:
            return ""
        return far(self._client.checked(*self._dialect.endpoint).stdout.strip())

    def _nature(self) -> Nature:
        """Ask only an engine that may be rootless: root's own is not."""
        if os.getuid() == 0 and not self._elsewhere:
            return Nature(rootless=False)
        done = self._client.checked(*self._dialect.info, timeout=PROBE_TIMEOUT)
        answer = self._client.json(done)
        return self._dialect.nature(answer if isinstance(answer, dict) else {})

    def inspect(self, name: str) -> Container | None:
        raw = self._client.container(name)
        if raw is None:
            return None
        found = container_from(raw, self._dialect)
        if found.state is State.RUNNING and self._abandoned(raw):
            return replace(found, state=State.LOST, pid=None, error=f"killed together with {self.name}'s monitor")
        if found.state is State.RUNNING and self._is_held(found):
            return replace(found, state=State.CREATED)  # a run is not finished, or was killed
        return found

    def containers(self) -> tuple[Container, ...]:
        listed = self._client.checked("ps", "--all", "--filter", f"label={LABEL_NAME}", "--format", "{{.Names}}")
        found = (self.inspect(name) for name in listed.stdout.split())
        return tuple(container for container in found if container is not None and container.ours)

    def _is_held(self, container: Container) -> bool:
        """Whether its restart policy was not set yet."""
        held = self._dialect.held
        return held is not None and LABEL_RESTART in container.labels and held in container.labels.items()

    def _abandoned(self, raw: dict[str, Any]) -> bool:
        """Whether the container has ended and its monitor, which would report that to the engine, is gone, too."""
        monitor = at(raw, *self._dialect.monitor) if self._dialect.monitor else None
        if not monitor or self._elsewhere:
            return False
        return not (proc.runs(monitor) or proc.runs(at(raw, "State", "Pid")))

    # Lifecycle

    def run(self, spec: ContainerSpec) -> str:
        if not self._dialect.guards:
            self._guard(spec)
        words = self._run_words(spec)
        deadline = time.monotonic() + REST_TIMEOUT
        while self._raced(done := self._runner.run(words, timeout=RUN_TIMEOUT), deadline):
            self._remove_ours(spec.name)
        if done.returncode:
            failure = self._client.failure(done)
            if not self._dialect.name_taken.search(done.stderr):
                self._remove_stillborn(spec)
            raise failure
        self._let_restart(spec.name, spec.restart)
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def _run_words(self, spec: ContainerSpec) -> tuple[str, ...]:
        """The command that ``render`` prints, plus the labels of a restart policy that is set later."""
        from deployer.render import run_argv

        words = run_argv(spec, self.name)
        if self._dialect.held is None or spec.restart == "no":
            return words
        labels = (LABEL_RESTART, spec.restart), self._dialect.held
        return (*words[:2], *(f"--label={key}={value}" for key, value in labels), *words[2:])

    def _let_restart(self, name: str, policy: str) -> None:
        """Set the restart policy that was held back. A container that has ended meanwhile is no error."""
        if self._dialect.held is None or policy == "no":
            return
        done = self._client.call("update", f"--restart={policy}", name)
        if done.returncode and (left := self.inspect(name)) is not None and self._is_held(left):
            raise self._client.failure(done)

    def _guard(self, spec: ContainerSpec) -> None:
        """Raise ConflictError when the name or a port is taken, for an engine that does not refuse it."""
        if self._client.container(spec.name) is not None:
            raise ConflictError(f"{self.name}: name {spec.name} is taken", hint="choose another name with --name")
        if not spec.ports:
            return
        running = self._client.checked("ps", "--format", "{{.Names}} {{.Ports}}").stdout
        for port in spec.ports:
            if holder := holder_of(port, running):
                raise ConflictError(
                    f"{self.name}: port {port.host_port} is taken by {holder}",
                    hint="free the port, or choose another with --port N",
                )

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        try:
            done = self._run_once(spec, timeout)
            if self._engine_failed(done) and self._dialect.name_taken.search(done.stderr):
                # The previous run was killed.
                self._remove_ours(spec.name)
                done = self._run_once(spec, timeout)
        except BaseException:
            self._remove_ours(spec.name)
            raise
        if self._engine_failed(done):
            failure = self._client.failure(done)
            self._remove_ours(spec.name)
            raise failure
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def _engine_failed(self, done: Completed) -> bool:
        dialect = self._dialect
        return done.returncode in dialect.failed_codes and dialect.failed_words.search(done.stderr) is not None

    def _run_once(self, spec: ContainerSpec, timeout: timedelta) -> Completed:
        from deployer.render import run_argv

        return self._runner.run(run_argv(spec, self.name, once=True), timeout=timeout.total_seconds())

    def _remove_ours(self, name: str) -> None:
        left = self.inspect(name)
        if left is not None and left.ours:
            self.remove(name)

    def _remove_stillborn(self, spec: ContainerSpec) -> None:
        """Remove the created container that a failed start leaves behind."""
        left = self.inspect(spec.name)
        if left is not None and left.ours and left.state is State.CREATED:
            self.remove(spec.name)

    def start(self, name: str) -> None:
        container = self.inspect(name)
        if container is None:
            raise EngineError(f"there is no container named {name!r}", hint="deployer up")
        if container.state is State.PAUSED:
            self._client.checked("unpause", name)
        elif container.state is State.LOST:
            raise EngineError(f"{name} can't be started: it was {container.error}", hint="deployer up")
        elif container.state is not State.RUNNING:
            self._start(name, container.labels.get(LABEL_RESTART, "no"))

    def _start(self, name: str, policy: str) -> None:
        """``policy``: the restart policy to set once the container runs."""
        if policy != "no":
            self._client.call("update", "--restart=no", name)  # an older containerd ignores it
        deadline = time.monotonic() + REST_TIMEOUT
        while self._raced(done := self._client.call("start", name, timeout=RUN_TIMEOUT), deadline):
            time.sleep(0.05)
        if done.returncode:
            raise self._client.failure(done)
        self._let_restart(name, policy)

    def _raced(self, done: Completed, deadline: float) -> bool:
        """Whether a call failed because the engine itself started or cleaned up the same container."""
        said = self._dialect.raced
        return bool(done.returncode and said and said.search(done.stderr)) and time.monotonic() < deadline

    def stop(self, name: str, *, timeout: timedelta) -> None:
        seconds = round(timeout.total_seconds())
        deadline = time.monotonic() + seconds + REST_TIMEOUT
        while True:
            ended = bool(self._dialect.late) and not self._runs(name)
            done = self._client.call("stop", f"--time={seconds}", name, timeout=seconds + 30)
            if done.returncode and not (self._raced(done, deadline) or self._is_lost(name)):
                raise self._client.failure(done)
            if self._rests(name) and not (ended and self._starts_late(name)):
                return
            if time.monotonic() > deadline:
                raise EngineError(f"{name} can't be stopped: it restarts again and again", hint="deployer down")
            time.sleep(0.05)

    def _runs(self, name: str) -> bool:
        found = self.inspect(name)
        return found is not None and found.state is State.RUNNING

    def _starts_late(self, name: str) -> bool:
        """Whether the engine starts a stopped container in the time in which it still may."""
        until = time.monotonic() + self._dialect.late
        while time.monotonic() < until:
            if self._runs(name):
                return True
            time.sleep(0.1)
        return False

    def _is_lost(self, name: str) -> bool:
        """Whether the container ended with its monitor; podman fails to stop such a one."""
        raw = self._client.container(name)
        return raw is not None and self._abandoned(raw)

    def _rests(self, name: str) -> bool:
        """Whether the engine has finished the stop and won't restart the container."""
        if not self._dialect.at_rest:
            return True
        raw = self._client.container(name)
        return raw is None or at(raw, "State", "Status") in self._dialect.at_rest or self._abandoned(raw)

    def hold(self, name: str) -> None:
        """Does nothing: a published port belongs to one container."""

    def remove(self, name: str) -> None:
        done = self._client.call("rm", "--force", name, timeout=RUN_TIMEOUT)
        if done.returncode and self._dialect.monitor:
            # podman's first try times out if the monitor was killed, and records that the container has ended.
            done = self._client.call("rm", "--force", name, timeout=RUN_TIMEOUT)
        if done.returncode and not self._client.absent(done):
            raise self._client.failure(done)

    def rename(self, name: str, new: str) -> None:
        self._client.checked("rename", name, new)

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        # nerdctl now and then waits for ever for a standard input that is empty.
        attached = ("--interactive",) if stdin else ()
        done = self._client.call("exec", *attached, name, *argv, stdin=stdin)
        said = self._dialect.exec_code
        if done.returncode and said is not None and (own := said.search(done.stderr)):
            return ExecResult(returncode=int(own[1]), stdout=done.stdout, stderr=said.sub("", done.stderr))
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def volume(self, name: str) -> Volume | None:
        done = self._client.call("volume", "inspect", name)
        if self._client.absent(done):
            return None
        if done.returncode:
            raise self._client.failure(done)
        found = next((raw for raw in self._client.listed(done) if raw.get("Name") == name), None)
        return Volume(name=name, labels=shaped(texts)(found.get("Labels"))) if found is not None else None

    def volume_create(self, name: str, labels: Mapping[str, str]) -> None:
        if self.volume(name) is not None:  # docker and nerdctl take the one that is there
            raise ConflictError(f"the volume {name} exists", hint="choose another name")
        words = [f"{key}={value}" for key, value in labels.items()]
        if self._dialect.volume_labels_csv:
            from deployer.render import csv_record

            words = [csv_record((word,)) for word in words]
        self._client.checked("volume", "create", *(f"--label={word}" for word in words), name)

    def volume_remove(self, name: str) -> None:
        done = self._client.call("volume", "rm", name)
        if done.returncode and not self._client.absent(done):
            raise self._client.failure(done)

    # Streaming

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        words = ["logs"]
        if follow:
            words.append("--follow")
        if since:
            words.append(f"--since={since}")
        if tail is not None:
            words.append(f"--tail={tail}")
        last = ""
        try:
            for last in self._runner.stream((self.name, *words, name)):
                yield last
        except ProcessFailed:
            raise EngineError(f"{self.name} logs: {last}", hint="deployer status") from None
