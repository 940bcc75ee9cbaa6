"""The engine for hosts without a container engine: devpi-server as a supervised background process.

One record per deployment (mode 0600) takes the place of a container engine's database. It holds the start time of the
process and the boot id, so that another process with the same pid is not mistaken for ours. Only a process whose
start time and boot id match is ever signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deployer import DISTRIBUTION
from deployer.engines import proc, process_log, standby
from deployer.engines.process_record import Record, Start, read_record, write_record
from deployer.engines.timestamps import moment
from deployer.errors import ConflictError, EngineError, EngineUnreachable
from deployer.files import make_private
from deployer.host.runner import Runner, telling
from deployer.protocol import KEPT, OWN_PYTHON, Taken, Told
from deployer.spec import (
    Container,
    ContainerSpec,
    EngineInfo,
    EngineName,
    ExecResult,
    NetworkMode,
    Port,
    State,
    Volume,
)

SERVER = (*OWN_PYTHON, "-m", "deployer.server")
# The server inherits what it needs to run and to reach the network, and no other variable: the environment of the
# user often holds tokens and passwords.
_INHERITED = frozenset(
    ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_DIR"]
)
NOT_FOUND = 127
"""The exit code of a command that does not exist, as in a shell and in a container."""
_SHOWN = len(("serve", "--serverdir", "DIRECTORY"))
"""Words of the server's command that are on its command line."""
LOG_SIZE = "10m"
_POLL = 0.02
_HANDED = 2.0
"""Seconds that a server has to send its sockets."""
_MOST_SOCKETS = 8
_KILLED = 5.0
"""Seconds to wait for a killed process group to end."""

if TYPE_CHECKING:
    import subprocess

    _Launch = Callable[..., subprocess.Popen[bytes]]


class ProcessEngine:
    """Implements :class:`deployer.engines.base.Engine` without containers.

    ``state_root``: the directory of all deployments; this engine uses ``NAME/process/`` in it. ``server``: the
    command of the server program, which also supervises.
    """

    def __init__(self, state_root: Path, *, server: Sequence[str] = SERVER, runner: Runner | None = None) -> None:
        self._root = state_root
        self._server = tuple(server)
        self._runner = runner or Runner()
        self._held: list[socket.socket] = []
        self.images = None

    @property
    def name(self) -> EngineName:
        return EngineName.PROCESS

    def served_by(self, *server: str) -> ProcessEngine:
        """The same engine with another server program, which gets the same sockets."""
        other = ProcessEngine(self._root, server=server, runner=self._runner)
        other._held = self._held
        return other

    def probe(self) -> EngineInfo:
        """Find what a server needs in this environment. Raises EngineUnreachable when it is not installed."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found, _ = version("devpi-server"), version("msgspec")
            return EngineInfo(name=self.name, version=found, how=sys.executable)
        except PackageNotFoundError as missing:
            raise EngineUnreachable(
                f"no container engine answers, and {missing.name} is not installed in deployer's environment",
                hint=f"{sys.executable} -m pip install '{DISTRIBUTION}[server]', or start docker, podman or containerd",
            ) from None

    # Records

    def _directory(self, name: str) -> Path:
        return self._root / name / "process"

    def _log(self, name: str) -> Path:
        return self._directory(name) / "server.log"

    def _file(self, name: str) -> Path:
        return self._directory(name) / "record.json"

    def _read(self, name: str) -> Record | None:
        return read_record(self._file(name))

    def _alive(self, record: Record) -> bool:
        """Whether our process runs. Its pid alone is no proof: the kernel reuses pids."""
        return bool(record.mark) and proc.mark(record.pid, self._runner) == record.mark

    def containers(self) -> tuple[Container, ...]:
        found = (self.inspect(path.parent.parent.name) for path in sorted(self._root.glob("*/process/record.json")))
        return tuple(container for container in found if container is not None)

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

    # Lifecycle

    def run(self, spec: ContainerSpec) -> str:
        if self._read(spec.name) is not None:
            raise ConflictError(f"the name {spec.name!r} is taken by another deployment", hint="deployer down")
        return self._start(spec.name, Record(env=dict(spec.all_env()), spec=Start.of(spec)))

    def once(self, spec: ContainerSpec, *, timeout: timedelta) -> ExecResult:
        """Run on this host, with the environment that a server of ``spec`` gets."""
        if self._read(spec.name) is not None:
            self.remove(spec.name)
        argv = (*self._server, *spec.command)
        done = self._runner.run(argv, timeout=timeout.total_seconds(), env=_environment(spec.env))
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
        """Start the supervisor, which waits until it is on record. If we are killed before, it ends by itself."""
        process = self._launched(standby.take, name, record.spec.command, record.spec.ports)
        with telling(process, json.dumps(_told(record))) as pid:
            now = _utc(datetime.now(UTC))
            write_record(self._file(name), replace(record, pid=pid, mark=proc.mark(pid, self._runner), started_at=now))
        return f"{name}-{pid}"

    def _launched(
        self, how: _Launch, name: str, command: Sequence[str], ports: Sequence[Port]
    ) -> subprocess.Popen[bytes]:
        """Start a supervisor, with those of the sockets held that are at its ``ports``."""
        log = self._log(name)
        make_private(log.parent)
        sockets = tuple(one.fileno() for one in self._held if _is_at(one, ports))
        env = _environment() | ({KEPT: json.dumps({"listeners": sockets})} if sockets else {})
        return how(self._argv(name, command), env=env, errors_to=log, descriptors=sockets)

    def hold(self, name: str) -> None:
        """Get the public sockets of the server for the one that replaces it; the kernel keeps who connects meanwhile.

        They stay open until this process ends. Without them clients are refused for a moment. The next server on the
        same data loads meanwhile.
        """
        record = self._require(name)
        if not self._alive(record) or not record.spec.mounts:
            return
        with contextlib.suppress(OSError, EngineError), tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "sockets"
            with socket.socket(socket.AF_UNIX) as door:
                door.bind(str(path))
                door.listen(1)
                door.settimeout(_HANDED)
                verb = (*self._server, "take", "--serverdir", record.spec.mounts[0].source)
                if self._runner.run(verb, stdin=Taken(id="sockets", to=str(path)).text.encode()).returncode:
                    return
                with door.accept()[0] as connection:
                    connection.settimeout(_HANDED)
                    _, found, _, _ = socket.recv_fds(connection, 1, _MOST_SOCKETS)
                    self._held[:] = [socket.socket(fileno=number) for number in found]
                    for one in self._held:
                        one.set_inheritable(False)
            self._launched(standby.begin, name, record.spec.command, record.spec.ports)

    def stand_by(self, name: str, data: str) -> None:
        """Let the server of ``name`` on the directory ``data`` load, unless it runs: the next start takes it.

        Raises EngineError, ConflictError, OSError.
        """
        record = self._read(name)
        if record is None or not self._alive(record):
            self._launched(standby.begin, name, ("serve", "--serverdir", data), ())

    def _argv(self, name: str, command: Sequence[str]) -> tuple[str, ...]:
        """The command of the supervisor, without the options of the plan: those come on standard input."""
        supervise = (*self._server, "supervise", "--when-told", "--log", str(self._log(name)))
        return (*supervise, "--", *command[:_SHOWN], "--when-told")

    def stop(self, name: str, *, timeout: timedelta) -> None:
        record = self._require(name)
        if not self._alive(record):
            return
        self._signal(record, os.kill, signal.SIGTERM)
        if not self._gone(record, timeout.total_seconds()):
            # It leads its own session, so the group is the supervisor and the server.
            self._signal(record, os.killpg, signal.SIGKILL)
            if not self._gone(record, _KILLED):
                raise EngineError(f"process {record.pid} of {name!r} can't be killed", hint=f"ps {record.pid}")

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
        # A failed start leaves a log and no record.
        shutil.rmtree(self._directory(name), ignore_errors=True)
        with contextlib.suppress(OSError):
            self._directory(name).parent.rmdir()

    def sweep(self, name: str) -> None:
        """Remove what a start that was killed early has left: a log, and no record. Raises EngineError."""
        if self._read(name) is None:
            shutil.rmtree(self._directory(name), ignore_errors=True)

    def rename(self, name: str, new: str) -> None:
        self._require(name)
        if self._read(new) is not None:
            raise ConflictError(f"the name {new!r} is taken", hint="deployer down")
        make_private(self._directory(new).parent)
        # A failed start leaves a log and no record.
        shutil.rmtree(self._directory(new), ignore_errors=True)
        # Atomic: the record does not hold the name.
        self._directory(name).rename(self._directory(new))

    # Logs and exec

    def logs(self, name: str, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        self._require(name)
        over = (lambda: not self._runs(name)) if follow else None
        yield from process_log.read(self._log(name), since=_utc(moment(since)) if since else "", tail=tail, over=over)

    def _runs(self, name: str) -> bool:
        record = self._read(name)
        return record is not None and self._alive(record)

    def exec(self, name: str, argv: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        """Run ``argv`` on this host, as this user."""
        self._require(name)
        if shutil.which(argv[0]) is None:
            return ExecResult(returncode=NOT_FOUND, stdout="", stderr=f"{argv[0]}: not found\n")
        done = self._runner.run(argv, stdin=stdin)
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def volume(self, name: str) -> Volume | None:
        return None

    def volume_create(self, name: str, labels: Mapping[str, str]) -> None:
        raise EngineError("a process has no volumes", hint="--engine docker, podman or nerdctl")

    def volume_remove(self, name: str) -> None:
        """Does nothing: a process has no volumes."""


def _is_at(listener: socket.socket, ports: Iterable[Port]) -> bool:
    return any(listener.getsockname()[:2] == (port.host_ip, port.host_port) for port in ports)


def _told(record: Record) -> Told:
    spec = record.spec
    return {
        "restart": spec.restart,
        "log_max_size": spec.log_max_size or LOG_SIZE,
        "log_max_files": spec.log_max_files,
        "env": dict(record.env),
        "words": list(spec.command[_SHOWN:]),
    }


def _environment(env: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key in _INHERITED}
    if paths := inherited.pop("PYTHONPATH", ""):
        # A relative entry, and an empty one, would import what is in the current directory.
        inherited["PYTHONPATH"] = os.pathsep.join(path for path in paths.split(os.pathsep) if path.startswith("/"))
    return inherited | dict(env)


def _utc(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
