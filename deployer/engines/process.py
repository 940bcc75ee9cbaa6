"""The engine for hosts without a container engine: devpi-server as a supervised background process.

What a container engine keeps in its own database is kept here in one record a deployment, 0600, with everything that
is needed to tell our process from a stranger that got its number: the kernel's start time of the process and the id
of the boot. A process of which that cannot be said is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployer.engines import proc, process_log
from deployer.engines.process_record import Record, Start, read_record, write_record
from deployer.engines.timestamps import moment
from deployer.errors import ConflictError, EngineError, EngineUnreachable
from deployer.files import make_private
from deployer.host.runner import Runner, spawning
from deployer.spec import (
    BuildRequest,
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    Image,
    NetworkMode,
    State,
)

SUPERVISE = (sys.executable, "-m", "deployer.server", "supervise", "--when-told")
# The server gets what programs need to run and to reach the network, and nothing else that happens to be in the
# environment of the person who starts it: tokens and passwords often are.
_INHERITED = frozenset(
    ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_DIR"]
)
_POLL = 0.02
_KILLED = 5.0
"""Seconds that a killed process group has to be gone."""


class ProcessEngine:
    """Implements :class:`deployer.engines.base.Engine` without containers.

    ``state_root``: the directory of all deployments; this engine uses ``NAME/process/`` in it. ``command``: what
    is started, before the log options and the server's own words.
    """

    def __init__(self, state_root: Path, *, command: Sequence[str] = SUPERVISE, runner: Runner | None = None) -> None:
        self._root = state_root
        self._command = tuple(command)
        self._runner = runner or Runner()

    @property
    def name(self) -> EngineName:
        return EngineName.PROCESS

    def probe(self) -> EngineInfo:
        """The version of devpi-server in this environment. Raises EngineUnreachable when it is not installed."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return EngineInfo(name=self.name, version=version("devpi-server"), how=sys.executable)
        except PackageNotFoundError:
            raise EngineUnreachable(
                "no container engine answers, and devpi-server is not installed beside deployer",
                hint=f"{sys.executable} -m pip install 'deployer[server]', or start docker, podman or containerd",
            ) from None

    def can_build_with_secrets(self) -> bool:
        return False

    # What exists

    def _directory(self, name: str) -> Path:
        return self._root / name / "process"

    def _log(self, name: str) -> Path:
        return self._directory(name) / "server.log"

    def _file(self, name: str) -> Path:
        return self._directory(name) / "record.json"

    def _read(self, name: str) -> Record | None:
        return read_record(self._file(name))

    def _alive(self, record: Record) -> bool:
        """Whether the process runs and is the one that we started: a number alone is anybody's."""
        return bool(record.mark) and proc.mark(record.pid, self._runner) == record.mark

    def inspect(self, name: str) -> Container | None:
        record = self._read(name)
        if record is None:
            return None
        spec, alive = record.spec, self._alive(record)
        return Container(
            id=f"{name}-{record.pid}",
            name=name,
            state=State.RUNNING if alive else State.STOPPED,
            image=spec.image,
            labels=dict(spec.labels),
            pid=record.pid if alive else None,
            started_at=record.started_at,
            ports=spec.ports,
            mounts=spec.mounts,
            network=NetworkMode.HOST,
            command=spec.command,
        )

    # What is done

    def run(self, spec: ContainerSpec) -> str:
        if self._read(spec.name) is not None:
            raise ConflictError(f"the name {spec.name!r} is taken by a process of ours", hint="deployer down")
        return self._start(spec.name, Record(env=dict(spec.env), spec=Start.of(spec)))

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        """On this host, with the environment that a server of ``spec`` would have."""
        env = {key: value for key, value in os.environ.items() if key in _INHERITED} | dict(spec.env)
        argv = (sys.executable, "-m", "deployer.server", *spec.command)
        done = self._runner.run(argv, timeout=timeout.total_seconds(), env=env)
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def start(self, name: str) -> None:
        record = self._require(name)
        if not self._alive(record):
            self._start(name, record)

    def _require(self, name: str) -> Record:
        record = self._read(name)
        if record is None:
            raise EngineError(f"there is no process named {name!r}", hint="deployer up")
        return record

    def _start(self, name: str, record: Record) -> str:
        """Start it, and let it go on once it is on record: if we are killed in between, it ends by itself."""
        log = self._log(name)
        make_private(log.parent)
        inherited = {key: value for key, value in os.environ.items() if key in _INHERITED}
        with spawning(self._argv(name, record), env=inherited | dict(record.env), errors_to=log) as pid:
            now = _utc(datetime.now(UTC))
            write_record(self._file(name), replace(record, pid=pid, mark=proc.mark(pid, self._runner), started_at=now))
        return f"{name}-{pid}"

    def _argv(self, name: str, record: Record) -> tuple[str, ...]:
        spec = record.spec
        log = ("--log", str(self._log(name)), "--log-max-files", str(spec.log_max_files))
        size = ("--log-max-size", spec.log_max_size) if spec.log_max_size else ()
        return (*self._command, *log, *size, "--restart", spec.restart, "--", *spec.command)

    def stop(self, name: str, *, timeout: timedelta) -> None:
        record = self._require(name)
        if not self._alive(record):
            return
        self._signal(record, os.kill, signal.SIGTERM)
        if not self._gone(record, timeout.total_seconds()):
            # It leads a session of its own: the group is the supervisor and the server, nobody else.
            self._signal(record, os.killpg, signal.SIGKILL)
            if not self._gone(record, _KILLED):
                raise EngineError(
                    f"process {record.pid} of {name!r} can't be killed", hint=f"look at it: ps {record.pid}"
                )

    def _signal(self, record: Record, send: Callable[[int, int], None], number: int) -> None:
        if self._alive(record):
            try:
                send(record.pid, number)
            except ProcessLookupError:
                return
            except PermissionError:
                raise EngineError(f"process {record.pid} belongs to another user", hint="run as that user") from None

    def _gone(self, record: Record, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._alive(record):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def remove(self, name: str) -> None:
        if self._read(name) is not None:
            self.stop(name, timeout=timedelta(seconds=10))
        # Without a record there may still be the log of a start that came to nothing.
        shutil.rmtree(self._directory(name), ignore_errors=True)
        with contextlib.suppress(OSError):
            self._directory(name).parent.rmdir()

    def rename(self, name: str, new: str) -> None:
        self._require(name)
        if self._read(new) is not None:
            raise ConflictError(f"the name {new!r} is taken", hint="deployer down")
        make_private(self._directory(new).parent)
        # Without a record, what is there is of a start that came to nothing.
        shutil.rmtree(self._directory(new), ignore_errors=True)
        # One step: what is on record of a process says nothing of its name.
        self._directory(name).rename(self._directory(new))

    # What it says

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        self._require(name)
        yield from process_log.kept(self._log(name), since=_utc(moment(since)) if since else "", tail=tail)
        if follow:
            yield from process_log.followed(self._log(name), over=lambda: not self._runs(name))

    def _runs(self, name: str) -> bool:
        record = self._read(name)
        return record is not None and self._alive(record)

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        """There is no inside: the words are run on this host, as this user."""
        self._require(name)
        done = self._runner.run(argv, stdin=stdin)
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    # There are no images

    def image(self, ref: str) -> Image | None:
        info = self.probe()
        return Image(id=f"devpi-server-{info.version}", ref=ref)

    def pull(self, ref: str, on_line: Callable[[str], None]) -> Image:
        raise EngineError("a process has no image", hint="--engine docker, podman or nerdctl")

    def build(self, request: BuildRequest, on_line: Callable[[str], None]) -> Image:
        raise EngineError("a process has no image", hint="--engine docker, podman or nerdctl")

    def images(self, repository: str) -> tuple[str, ...]:
        return ()

    def image_remove(self, image: str) -> bool:
        raise EngineError("a process has no image", hint="--engine docker, podman or nerdctl")

    def volume_remove(self, name: str) -> None:
        raise EngineError("a process has no volumes", hint="--engine docker, podman or nerdctl")


def _utc(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
