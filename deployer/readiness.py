"""Wait until a server is up, is ours, lets us in and serves its index; give up as soon as that can't come true.

Until the server speaks, it is asked with bare sockets: httpx takes a fifth of a second to import, which happens
meanwhile in the background, as does the engine's answer to whether the server still lives.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from deployer.background import meanwhile
from deployer.errors import ConflictError, DeployerError, EngineError, NotReadyError
from deployer.secrets import Secret, mask
from deployer.spec import Container, State

if TYPE_CHECKING:
    from concurrent.futures import Future

    from deployer.devpi.api import DevpiApi
    from deployer.devpi.identity import Identity
    from deployer.engines.base import Engine

T = TypeVar("T")

STAGES = ("process", "port", "api", "ours", "login", "index")
ROOT = "root"
POLL = 0.015
"""Seconds between two looks at a port: short, for the time from the server's first answer to ours counts."""
LOG_LINES = 20
_INSPECT_FIRST, _INSPECT_SLOWEST = 0.3, 2.0  # seconds; asking an engine costs a process
_READ_FIRST, _READ_SLOWEST = 1.0, 8.0  # seconds; a frozen server must not hide its own death for long
_MAX_ANSWER = 64 * 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class Ready:
    """``timings``: seconds from the start of the wait to each stage that was passed. The caller closes ``api``."""

    timings: dict[str, float]
    api: DevpiApi
    identity: Identity


def wait(
    *,
    url: str,
    engine: Engine,
    name: str,
    expected_uuid: Callable[[], str | None],
    proof_key: Callable[[], str | None],
    credentials: Callable[[], Secret] | None,
    index: str | None,
    deadline: timedelta,
    on_stage: Callable[[str, float], None],
    mask: Callable[[str], str] = mask,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ready:
    """Wait for the server ``name`` of ``engine`` at ``url``; ``on_stage`` hears of each stage that is passed.

    ``expected_uuid`` and ``proof_key`` (hex) are asked once the server answers, as a first boot writes them;
    None means not known. Without ``credentials`` nobody logs in, without ``index`` none is asked for (on a first
    boot there is none yet). ``url`` is asked exactly as given, past all proxies; ``clock`` is monotonic.

    Raises NotReadyError with the last log lines when the server dies or the deadline passes, ConflictError when
    another server answers (it is never sent a password), ServerRefused when root's password or the index is refused.
    """
    httpx = meanwhile(lambda: import_module("deployer.devpi.api"))
    watch = _Watch(engine, name, mask=mask, clock=clock)
    run = _Run(url, deadline, watch=watch, on_stage=on_stage, clock=clock, sleep=sleep)
    run.until_it_speaks()
    httpx.result()
    return _introduce(run, url, expected_uuid=expected_uuid, proof_key=proof_key, credentials=credentials, index=index)


def lost(engine: Engine, name: str, *, mask: Callable[[str], str] = mask) -> NotReadyError | None:
    """Why a server that was ready no longer answers, as far as its engine knows. Raises EngineError."""
    container = engine.inspect(name)
    if container is None or (container.state is State.RUNNING and not container.oom_killed):
        return None
    return _Watch(engine, name, mask=mask, clock=time.monotonic).death(container, "stopped")


def _introduce(
    run: _Run,
    url: str,
    *,
    expected_uuid: Callable[[], str | None],
    proof_key: Callable[[], str | None],
    credentials: Callable[[], Secret] | None,
    index: str | None,
) -> Ready:
    from deployer.devpi.api import DevpiApi

    api = DevpiApi(url)
    try:
        nonce = secrets.token_hex(16)
        identity = run.insist(api, lambda: api.identity(nonce))
        known = check_ours(url, identity, nonce=nonce, uuid=expected_uuid(), key=proof_key())
        run.passed("ours")
        if credentials is not None:
            if not known:
                raise ConflictError(
                    f"cannot tell whether the server at {url} is this deployment's, so it gets no password",
                    hint="run as a user who may read the data directory",
                )
            password = credentials()
            run.insist(api, lambda: api.login(ROOT, password))
            run.passed("login")
        if index is not None:
            run.insist(api, lambda: api.simple_status(index))
            run.passed("index")
    except BaseException:
        api.close()
        raise
    return Ready(timings=run.timings, api=api, identity=identity)


def check_ours(url: str, identity: Identity, *, nonce: str, uuid: str | None, key: str | None) -> bool:
    """Whether anything speaks for the server being ours. Raises ConflictError when something speaks against it."""
    from deployer.devpi.identity import verify

    cure = "stop what holds that address, or choose another one with --port"
    if uuid is not None and identity.uuid != uuid:
        raise ConflictError(
            f"another devpi answers at {url}: its uuid is {identity.uuid}, that of the data directory {uuid}",
            hint=cure,
        )
    if key is not None and not verify(identity, nonce=nonce, proof_key=key):
        raise ConflictError(
            f"the server at {url} can't prove that it runs on this deployment's data directory", hint=cure
        )
    return uuid is not None or key is not None


class _Run:
    """One wait: how long it has taken, how long it may take, how far it has come."""

    def __init__(
        self,
        url: str,
        deadline: timedelta,
        *,
        watch: _Watch,
        on_stage: Callable[[str, float], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._url = url
        self._limit = deadline.total_seconds()
        self._watch = watch
        self._on_stage = on_stage
        self._clock = clock
        self._sleep = sleep
        self._start = clock()
        self.timings: dict[str, float] = {}

    def left(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self._start + self._limit - self._clock()

    def passed(self, stage: str) -> None:
        """Record a stage; one that is known to be passed already is not told again."""
        if stage not in self.timings:
            self.timings[stage] = self._clock() - self._start
            self._on_stage(stage, self.timings[stage])

    def until_it_speaks(self) -> None:
        """The stages process, port and api. Raises NotReadyError."""
        patience = _READ_FIRST
        seen = nothing = "nothing listens there"
        while self.left() > 0:
            given = min(patience, self.left())
            try:
                answer = _ask(self._url, given, on_connect=self._connected)
            except TimeoutError:
                if given == patience or seen == nothing:  # else the deadline cut it short, which tells nothing new
                    seen = "it accepts connections but does not answer"
                patience = min(patience * 2, _READ_SLOWEST)
            except OSError as error:
                if "port" in self.timings:
                    seen = f"it accepts connections but does not answer ({error})"
            else:
                if answer.devpi:
                    self.passed("api")
                    return
                seen = f"it answers, but not as devpi does ({answer.text})"
                if answer.status == 200:  # a devpi that is still starting never says that all is well
                    raise NotReadyError(
                        f"{self._url} is not ready: {seen}",
                        hint="another program may hold this port: choose another with --port",
                    )
            if self._watch.alive():
                self.passed("process")
            self._sleep(POLL)
        raise self._late(f"{self._url} is not ready: {seen}")

    def insist(self, api: DevpiApi, call: Callable[[], T]) -> T:
        """Ask until there is an answer. Raises what speaks against another try, and NotReadyError at the deadline."""
        whole = api.timeout
        while True:
            api.timeout = max(0.1, min(whole, self.left()))
            try:
                return call()
            except NotReadyError as error:
                if not error.retryable:
                    raise
                if self.left() <= 0:
                    raise self._late(error.message) from None
            finally:
                api.timeout = whole
            self._watch.alive()
            self._sleep(POLL)

    def _connected(self) -> None:
        self.passed("process")
        self.passed("port")

    def _late(self, cause: str) -> NotReadyError:
        waited = self._clock() - self._start
        after = next((stage for stage in reversed(STAGES) if stage in self.timings), "")
        at = STAGES[STAGES.index(after) + 1] if after else STAGES[0]
        return NotReadyError(
            f"{cause}, after {waited:.1f} s, at stage {at}{self._watch.says()}",
            hint="see what it is doing: deployer logs; a slow host may need a longer --timeout",
            details=self._watch.last_lines(),
        )


class _Watch:
    """Asks the engine now and then, in the background, whether the server still lives."""

    def __init__(self, engine: Engine, name: str, *, mask: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._engine = engine
        self._name = name
        self._mask = mask
        self._clock = clock
        self._pause = _INSPECT_FIRST
        self._next = clock() + self._pause
        self._pending: Future[Container | None] | None = None
        self._starts: set[str] = set()

    def alive(self) -> bool:
        """Whether the engine just said that it runs; False when it was not asked. Raises NotReadyError when not."""
        if self._pending is None:
            if self._clock() >= self._next:
                self._pending = meanwhile(lambda: self._engine.inspect(self._name))
            return False
        if not self._pending.done():
            return False
        pending, self._pending = self._pending, None
        self._pause = min(self._pause * 1.5, _INSPECT_SLOWEST)
        self._next = self._clock() + self._pause
        try:
            return self._judge(pending.result())
        except EngineError:
            return False  # an engine that stumbles says nothing about the server

    def _judge(self, container: Container | None) -> bool:
        if container is None:
            raise NotReadyError(
                f"{self._name} is gone before it was ready: something else removed it",
                hint="run 'deployer up' again",
            )
        if container.state in (State.RUNNING, State.RESTARTING):
            self._starts.add(container.started_at)
        deaths = max(0, len(self._starts) - 1) + (container.state is State.RESTARTING)
        # A restart policy may well cure the first death, a second one is a loop.
        ended = container.state in (State.STOPPED, State.LOST)
        if ended or deaths > 1:
            what = "stopped before it was ready" if ended else "stops again and again"
            raise self.death(container, what)
        return container.state is State.RUNNING

    def death(self, container: Container, what: str) -> NotReadyError:
        """What is told of a server that stopped."""
        code = "" if container.exit_code is None else f" (exit code {container.exit_code})"
        reason = f": {self._mask(container.error)}" if container.error else ""
        if container.oom_killed:
            return NotReadyError(
                f"{self._name} was killed because it used more memory than it may{code}",
                hint="allow it more: --set server.memory=512m",
                details=self.last_lines(),
            )
        return NotReadyError(
            f"{self._name} {what}{code}{reason}",
            hint="its last lines say why; 'up --keep' leaves it for a look with 'deployer logs'",
            details=self.last_lines(),
        )

    def says(self) -> str:
        """The engine's own word for the server's state, for the end of a sentence. Raises as :meth:`alive`."""
        try:
            container = self._engine.inspect(self._name)
        except EngineError as error:
            return f" ({self._engine.name}: {self._mask(error.message)})"
        running = self._judge(container)
        return "" if running or container is None else f" ({self._engine.name} says: {container.state})"

    def last_lines(self) -> tuple[str, ...]:
        """The end of the server's log, masked."""
        try:
            lines = deque(self._engine.logs(self._name, tail=LOG_LINES), maxlen=LOG_LINES)
        except DeployerError:
            return ()
        return tuple(self._mask(line) for line in lines)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    body: bytes

    @property
    def devpi(self) -> bool:
        """Whether this is what devpi says to ``GET /+api``."""
        try:
            answer = json.loads(self.body)
        except (ValueError, RecursionError):
            return False
        return self.status == 200 and isinstance(answer, dict) and answer.get("type") == "apiconfig"

    @property
    def text(self) -> str:
        start = " ".join(self.body[:200].decode("utf-8", "replace").split())[:80]
        shown = "".join(char if char.isprintable() else "?" for char in start)
        return f"HTTP {self.status}: {shown}" if self.status else f"no HTTP: {shown}"


def _ask(url: str, timeout: float, *, on_connect: Callable[[], None]) -> _Answer:
    """``GET /+api`` within ``timeout`` seconds as a whole. Raises OSError, TimeoutError when it took too long.

    HTTP 1.0, so that the end of the answer is the end of the connection.
    """
    parts = urlsplit(url)
    end = time.monotonic() + timeout
    address = (parts.hostname or "", parts.port or 80)
    try:
        connection = socket.create_connection(address, timeout=timeout)
    except TimeoutError as error:
        raise OSError(f"no connection within {timeout:.1f} s") from error
    with connection:
        on_connect()
        request = (
            f"GET {parts.path.rstrip('/')}/+api HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n\r\n"
        )
        connection.sendall(request.encode("ascii"))
        received = bytearray()
        while len(received) < _MAX_ANSWER and not _complete(received):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
    if not received:
        raise OSError("connection closed without an answer")
    return _parse(bytes(received))


def _complete(received: bytearray) -> bool:
    """Whether a server that keeps the connection open has said how much it says, and has said it."""
    head, found, body = bytes(received).partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value.strip()[:12])  # Python refuses numbers of thousands of digits
    return False


def _parse(received: bytes) -> _Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not re.fullmatch(rb"[1-5]\d\d", words[1]):
        return _Answer(status=0, body=received)
    return _Answer(status=int(words[1]), body=body)
