"""The staged wait: what it tells when, whom it asks what, and when it gives up. Real sockets, a scripted engine."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from deployer import readiness
from deployer.errors import (
    ConflictError,
    DeployerError,
    EngineError,
    NotReadyError,
    Refused,
    ServerRefused,
    VerificationError,
)
from deployer.host import background
from deployer.readiness import Ready
from deployer.readiness.run import STAGES
from deployer.secrets import Secret
from deployer.spec import State
from tests.hostile import Answer, HostileServer, always, by_path, devpi_reply, drip, reply
from tests.scripted_engine import ScriptedEngine, container

PASSWORD = "canary-password-9d1c"
UUID = "00112233445566778899aabbccddeeff"
KEY = "5a" * 32
PATIENCE = 60.0
API = devpi_reply("apiconfig", {"authstatus": ["noauth", "", []]})
HTML = reply(b"<h1>It works</h1>", kind="text/html")
STARTING = reply(b"not yet", status="503 Busy", kind="text/plain")
PLAIN = {
    "GET /+api": API,
    "GET /+status": devpi_reply("status", {"uuid": UUID, "versioninfo": {"devpi-server": "6.20.3"}}),
    "POST /+login": devpi_reply("proxyauth", {"password": "a token", "expiration": 36000}),
    "GET /root/dev?no_projects=": devpi_reply("indexconfig", {"type": "stage"}),
}


def with_plugin(key: str = KEY, uuid: str = UUID) -> Answer:
    """A server that proves who it is, as ours does."""
    plain = by_path(PLAIN)

    def answer(request: bytes) -> Iterator[bytes]:
        if not request.startswith(b"GET /+deployer "):
            yield from plain(request)
            return
        lines = request.decode().split("\r\n")
        nonce = next(line.split(": ")[1] for line in lines if line.lower().startswith("x-deployer-nonce"))
        proof = hmac.new(bytes.fromhex(key), f"{nonce}:{uuid}".encode(), hashlib.sha256).hexdigest()
        yield reply(json.dumps({"uuid": uuid, "proof": proof}).encode())

    return answer


@dataclass
class Clock:
    """A clock that only goes on when somebody sleeps, and when all that is asked meanwhile has been answered."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for thread in threading.enumerate():
            if thread.name == background.NAME:
                thread.join(PATIENCE)
        time.sleep(0.001)


class RealClock(Clock):
    """For what really takes time, as a read from a socket does."""

    def __call__(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class Waiting:
    """One wait with everything that it is given; change what a test is about."""

    url: str
    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    uuid: str | None = UUID
    key: str | None = KEY
    password: Secret | None = field(default_factory=lambda: Secret(PASSWORD))
    index: str | None = "root/dev"
    seconds: float = 10.0
    clock: Clock = field(default_factory=Clock)
    stages: list[str] = field(default_factory=list)

    def run(self) -> Ready:
        password = self.password
        ready = readiness.wait(
            url=self.url,
            engine=self.engine.as_engine(),
            name="devpi",
            expected_uuid=lambda: self.uuid,
            proof_key=lambda: self.key,
            credentials=None if password is None else lambda: password,
            index=self.index,
            deadline=timedelta(seconds=self.seconds),
            on_stage=lambda stage, seconds: self.stages.append(stage),
            mask=lambda line: line.replace(PASSWORD, "****"),
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        ready.api.close()
        return ready

    def fails(self) -> DeployerError:
        with pytest.raises(DeployerError) as caught:
            self.run()
        assert "\n" not in caught.value.message
        assert caught.value.hint
        return caught.value


@contextmanager
def nothing_there() -> Iterator[str]:
    """An address where nothing listens, and nothing else will as long as this is held."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


def test_all_stages_in_order() -> None:
    with HostileServer(with_plugin()) as server:
        waiting = Waiting(server.url)
        ready = waiting.run()
    assert waiting.stages == list(STAGES)
    assert tuple(ready.timings) == STAGES
    assert list(ready.timings.values()) == sorted(ready.timings.values())
    assert ready.identity.uuid == UUID


def test_without_credentials_nobody_logs_in_and_without_index_none_is_asked_for() -> None:
    with HostileServer(with_plugin()) as server:
        waiting = Waiting(server.url, password=None, index=None)
        waiting.run()
        requests = [request.split(b" HTTP")[0] for request in server.received]
    assert waiting.stages == ["process", "port", "api", "ours"]
    assert requests == [b"GET /+api", b"GET /+deployer"]
    assert waiting.engine.inspected == 0


def test_no_simple_page_is_ever_asked_for() -> None:
    with HostileServer(with_plugin()) as server:
        Waiting(server.url).run()
        assert b"+simple" not in server.everything


def test_polls_until_it_answers() -> None:
    """Slow to start: nothing listens, then errors, then devpi."""
    with nothing_there() as url:
        port = int(url.rpartition(":")[2])
    answers = iter([always(), always(STARTING), always(b"SSH-2.0-x\r\n")])
    plain = with_plugin()
    server = HostileServer(lambda request: next(answers, plain)(request), port=port)
    timer = threading.Timer(0.2, server.__enter__)
    timer.start()
    try:
        waiting = Waiting(url, seconds=600)
        waiting.run()
    finally:
        timer.join()
        server.__exit__(None, None, None)
    assert waiting.stages == list(STAGES)
    assert waiting.clock.now > 1000


def test_nothing_listens_at_the_deadline() -> None:
    with nothing_there() as url:
        waiting = Waiting(url, ScriptedEngine(container(), log=["still importing"]), seconds=3)
        error = waiting.fails()
    assert isinstance(error, NotReadyError)
    assert "connection refused" in error.message
    assert "at stage port" in error.message
    assert error.details == ("still importing",)
    assert waiting.stages == ["process"]


def test_listens_but_never_answers() -> None:
    with HostileServer(drip(b"", pause=30)) as server:
        error = Waiting(server.url, seconds=1, clock=RealClock()).fails()
    assert error.exit_code == 6
    assert "accepts connections but does not answer" in error.message
    assert "at stage api" in error.message


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"]
)
def test_slow_drip_does_not_outlast_the_deadline(start: bytes) -> None:
    with HostileServer(drip(start)) as server:
        error = Waiting(server.url, seconds=1, clock=RealClock()).fails()
    assert error.exit_code == 6
    assert "does not answer" in error.message


@pytest.mark.parametrize("answer", [HTML, reply(b"[]"), reply(b"{}"), reply(b"\x1b[2J")])
def test_another_program_that_says_all_is_well_ends_the_wait(answer: bytes) -> None:
    with HostileServer(always(answer)) as server:
        waiting = Waiting(server.url, seconds=600)
        error = waiting.fails()
        assert PASSWORD.encode() not in server.everything
        assert len(server.received) == 1
    assert error.exit_code == 6
    assert "the answer is not devpi's" in error.message
    assert error.message.isprintable()


def test_endless_answer_is_cut_off() -> None:
    def endless(request: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(10_000):
            yield b"x" * 1_000_000

    with HostileServer(endless) as server:
        error = Waiting(server.url).fails()
        assert server.sent < 50_000_000
    assert error.exit_code == 6


def test_error_pages_until_the_deadline() -> None:
    with HostileServer(always(STARTING)) as server:
        error = Waiting(server.url, seconds=3).fails()
    assert "HTTP 503: not yet" in error.message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (with_plugin(uuid="f" * 32), "another devpi answers"),
        (with_plugin(key="5b" * 32), "can't prove"),
        (by_path(PLAIN), "can't prove"),
    ],
    ids=["another uuid", "another key", "no proof"],
)
def test_another_server_gets_no_password(answer: Answer, said: str) -> None:
    with HostileServer(answer) as server:
        waiting = Waiting(server.url)
        error = waiting.fails()
        assert PASSWORD.encode() not in server.everything
        assert b"/+login" not in server.everything
    assert isinstance(error, ConflictError)
    assert said in error.message
    assert "ours" not in waiting.stages


def test_nobody_vouches_for_the_server() -> None:
    with HostileServer(by_path(PLAIN)) as server:
        error = Waiting(server.url, uuid=None, key=None).fails()
        assert PASSWORD.encode() not in server.everything
    assert isinstance(error, ConflictError)
    assert "so no password is sent" in error.message


def test_foreign_image_is_known_by_its_uuid() -> None:
    with HostileServer(by_path(PLAIN)) as server:
        waiting = Waiting(server.url, key=None)
        waiting.run()
    assert waiting.stages == list(STAGES)


def test_uuid_is_asked_for_after_the_server_answered() -> None:
    """A first boot writes it just before it listens."""
    asked: list[str] = []
    with HostileServer(with_plugin()) as server:
        waiting = Waiting(server.url)
        readiness.wait(
            url=server.url,
            engine=waiting.engine.as_engine(),
            name="devpi",
            expected_uuid=lambda: asked.append(waiting.stages[-1]) or UUID,  # type: ignore[func-returns-value]
            proof_key=lambda: KEY,
            credentials=None,
            index=None,
            deadline=timedelta(seconds=10),
            on_stage=lambda stage, seconds: waiting.stages.append(stage),
        ).api.close()
    assert asked == ["api"]


def test_wrong_password() -> None:
    refused = PLAIN | {"POST /+login": reply(b'{"message": "no"}', status="401 Unauthorized")}
    with HostileServer(by_path(refused)) as server:
        error = Waiting(server.url, key=None).fails()
        logins = sum(request.startswith(b"POST /+login") for request in server.received)
    assert isinstance(error, ServerRefused)
    assert "cannot log in as root" in error.message
    assert "deployer secret set root" in error.hint
    assert logins == 1


def test_missing_index() -> None:
    with HostileServer(with_plugin()) as server:
        waiting = Waiting(server.url, index="root/none")
        error = waiting.fails()
    assert isinstance(error, ServerRefused)
    assert "root/none" in error.message
    assert waiting.stages[-1] == "login"


def test_server_that_stumbles_after_its_first_answer_is_asked_again() -> None:
    plain, stumbles = with_plugin(), iter([True, True])

    def answer(request: bytes) -> Iterator[bytes]:
        if b"/+deployer" in request and next(stumbles, False):
            return iter(())
        return plain(request)

    with HostileServer(answer) as server:
        waiting = Waiting(server.url)
        waiting.run()
    assert waiting.stages == list(STAGES)


def test_dead_server_ends_the_wait_with_its_last_lines() -> None:
    log = [f"line {number}" for number in range(100)] + [f"bad option, password {PASSWORD}"]
    dead = container(State.STOPPED, exit_code=3, error="exec failed")
    with nothing_there() as url:
        waiting = Waiting(url, ScriptedEngine(container(), dead, log=log), seconds=600)
        error = waiting.fails()
    assert isinstance(error, NotReadyError)
    assert error.message == "devpi stopped before it was ready (exit code 3): exec failed"
    assert error.details == (*(f"line {number}" for number in range(81, 100)), "bad option, password ****")
    assert waiting.clock.now < 1000 + 60


def test_log_that_cannot_be_had_hides_nothing() -> None:
    engine = ScriptedEngine(container(State.STOPPED, exit_code=1), log_error=EngineError("no logs"))
    with nothing_there() as url:
        error = Waiting(url, engine).fails()
    assert "stopped before it was ready (exit code 1)" in error.message
    assert error.details == ()


def test_lack_of_memory_is_called_so() -> None:
    dead = container(State.STOPPED, exit_code=137, oom_killed=True)
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(dead)).fails()
    assert "out of memory (OOM-killed) (exit code 137)" in error.message
    assert "server.memory" in error.hint


def test_restart_loop_ends_the_wait() -> None:
    starts = [container(started_at=f"start {number}") for number in range(1, 4)]
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(*starts), seconds=600).fails()
    assert "restarts in a loop" in error.message


def test_restart_seen_between_two_lives_counts() -> None:
    again = container(State.RESTARTING, started_at="2nd", exit_code=1)
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(container(), again), seconds=600).fails()
    assert "restarts in a loop (exit code 1)" in error.message


def test_one_restart_is_forgiven() -> None:
    engine = ScriptedEngine(container(State.CREATED, started_at=""), container(), container(started_at="2nd"))
    with nothing_there() as url:
        error = Waiting(url, engine, seconds=5).fails()
    assert "connection refused" in error.message


def test_container_that_is_gone_ends_the_wait() -> None:
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(None), seconds=600).fails()
    assert "another program removed devpi" in error.message


def test_paused_container_is_named_at_the_deadline() -> None:
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(container(State.PAUSED)), seconds=3).fails()
    assert "docker says: paused" in error.message


def test_engine_that_stumbles_does_not_end_the_wait() -> None:
    engine = ScriptedEngine(EngineError("socket busy"), container(State.STOPPED, exit_code=1))
    with nothing_there() as url:
        error = Waiting(url, engine).fails()
    assert "stopped before it was ready" in error.message


def test_engine_is_asked_seldom() -> None:
    """A look costs a process: about two a second at first, one in two seconds later on."""
    engine = ScriptedEngine()
    with nothing_there() as url:
        Waiting(url, engine, seconds=10).fails()
    assert 3 < engine.inspected < 15


def test_wall_clock_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([86400.0, -86400.0] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    with HostileServer(with_plugin()) as server:
        ready = Waiting(server.url, clock=RealClock()).run()
    assert all(0 <= seconds < 60 for seconds in ready.timings.values())


def test_asks_exactly_the_address_that_it_was_given() -> None:
    with HostileServer(with_plugin(), host="::1") as server:
        Waiting(server.url).run()
        assert all(f"Host: [::1]:{server.port}\r\n".encode() in request for request in server.received)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(always(HTML)) as proxy, HostileServer(with_plugin()) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        Waiting(server.url).run()
        assert proxy.received == []


def test_import_is_light() -> None:
    heavy = "import sys, deployer.readiness; print([m for m in ('httpx', 'pydantic', 'docker') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(5, ConflictError), (9, VerificationError), (11, Refused), (1, NotReadyError)],
)
def test_a_server_that_will_not_run_is_told_in_its_own_words(code: int, kind: type[DeployerError]) -> None:
    log = [
        *("Serving on http://…", f"deployer: exit code {code}: {PASSWORD} is damaged", "deployer: restore a backup"),
        f"supervisor: exit code {code}, not restarted",
    ]
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(container(State.STOPPED), log=log)).fails()
    assert type(error) is kind
    assert (error.message, error.hint) == ("devpi refused to start: **** is damaged", "restore a backup")
    assert error.details == ()


def test_what_it_said_before_it_ran_again_is_not_why_it_died() -> None:
    log = ["deployer: exit code 9: the database is damaged", "deployer: restore a backup", "Serving on http://…"]
    with nothing_there() as url:
        error = Waiting(url, ScriptedEngine(container(State.STOPPED, exit_code=1), log=log)).fails()
    assert error.message == "devpi stopped before it was ready (exit code 1)"
    assert error.details == tuple(log)
