"""``python -m deployer.server`` as a process on a directory of the test's own."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plain_devpi import free_port

PATIENCE = 180.0
"""Seconds until a test stops waiting for what must come: far more than it takes."""
COMMAND = (sys.executable, "-m", "deployer.server")


def request(
    port: int, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON body of one request. Raises OSError while nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=sent)
        response = connection.getresponse()
        data = response.read()
        is_json = "json" in response.headers.get_content_type()
        return response.status, json.loads(data) if is_json else data
    finally:
        connection.close()


def login(port: int, password: str) -> tuple[int, Any]:
    """Log root in; the answer."""
    return request(port, "POST", "/+login", body={"user": "root", "password": password})


@dataclass
class Server:
    """One server directory and, between :meth:`launch` and :meth:`end`, the process on it."""

    serverdir: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    python: str = sys.executable  # with the devpi-server that is to run

    @property
    def log_file(self) -> Path:
        return self.serverdir.with_name(f"{self.serverdir.name}.log")

    @property
    def private(self) -> Path:
        return self.serverdir / ".deployer"

    @property
    def words(self) -> tuple[str, ...]:
        return ("serve", "--serverdir", str(self.serverdir), "--port", str(self.port))

    @property
    def output(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def password(self) -> str:
        return (self.private / "root-password").read_text().strip()

    @property
    def auth(self) -> dict[str, str]:
        """The header with which root is known, by a token that it just got."""
        status, answer = login(self.port, self.password)
        assert status == 200, answer
        return auth_header(answer["result"]["password"])

    def launch(self, *more: str, command: Sequence[str] = (), umask: int = -1) -> subprocess.Popen[bytes]:
        """Start the process and don't wait for it."""
        words = [*(command or (self.python, *COMMAND[1:])), *self.words, *more]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, umask=umask)
        return self.process

    def start(self, *more: str, umask: int = -1) -> Server:
        """Start the process and return when it answers."""
        self.launch(*more, umask=umask)
        return self.wait()

    def wait(self) -> Server:
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if (self.process is not None and self.process.poll() is not None) or time.monotonic() > deadline:
                raise AssertionError(f"the server does not answer:\n{self.output[-4000:]}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            return request(self.port, "GET", "/+api")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def refuses(self, *more: str) -> tuple[int, str]:
        """Start the process, which is to end by itself: exit code and all that it wrote."""
        before = len(self.output)
        code = self.launch(*more).wait(PATIENCE)
        self.process = None
        return code, self.output[before:]

    def send(self, number: signal.Signals) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def end(self) -> None:
        """End the process, whatever state it is in."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def auth_header(token: str) -> dict[str, str]:
    return {"X-Devpi-Auth": base64.b64encode(f"root:{token}".encode()).decode()}
