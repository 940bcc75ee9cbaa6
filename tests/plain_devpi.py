"""A real devpi-server process as its own commands make it: nothing of deployer's server part is involved."""

from __future__ import annotations

import contextlib
import http.client
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

PASSWORD = "correct horse battery staple"
CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
"""devpi stretches its secret at every start; with a random secret and in tests that is ten seconds for nothing."""


def free_port() -> int:
    """A port that nothing listens on, and that nothing is given by chance: the kernel's own choice for whoever does
    not care is a port above these."""
    while True:
        port = random.randint(10_240, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port


def init(serverdir: Path, *, python: str = sys.executable, password: str = PASSWORD) -> None:
    """An initialised server directory without indexes, root's password set. ``python``: that has devpi-server."""
    # In the environment, not in argv: the habit that deployer itself must have.
    subprocess.run(
        [
            python,
            "-c",
            "from devpi_server.init import init; init()",
            "--serverdir",
            str(serverdir),
            "--no-root-pypi",
        ],
        check=True,
        capture_output=True,
        env={"DEVPISERVER_ROOT_PASSWD": password},
    )


@dataclass
class PlainDevpi:
    """One server directory and, between :meth:`start` and :meth:`stop`, the process that serves it."""

    serverdir: Path
    port: int = field(default_factory=free_port)
    password: str = PASSWORD
    python: str = sys.executable
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secret_file(self) -> Path:
        return self.serverdir.with_name(f"{self.serverdir.name}.secret")

    @property
    def log_file(self) -> Path:
        return self.serverdir.with_name(f"{self.serverdir.name}.log")

    @property
    def requests(self) -> tuple[str, ...]:
        """Every request so far, as its log tells them: ``GET /+api``."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        methods = ("GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ")
        told = (line.partition("] ")[2] for line in lines if "[req" in line)
        return tuple(text for text in told if text.startswith(methods))

    def launch(self) -> None:
        """Start the process and don't wait for it."""
        if not self.secret_file.exists():
            self.new_secret()
        command = [
            *(self.python, "-m", "devpi_server", "--serverdir", str(self.serverdir)),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--secretfile", str(self.secret_file), "--restrict-modify", "root", *CHEAP),
        ]
        log: BinaryIO
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        """Start the process and return when it answers."""
        self.launch()
        end = time.monotonic() + 180
        while not self.answers():
            if self.process is None or self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"devpi-server did not start:\n{self.log_file.read_text()[-4000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/+api", headers={"Accept": "application/json"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def new_secret(self) -> None:
        """Make every token that was given out worthless, from the next start on."""
        self.secret_file.parent.chmod(0o700)  # devpi refuses a secret in a directory that others may write
        self.secret_file.write_text(secrets.token_urlsafe(32))
        self.secret_file.chmod(0o600)

    def copy(self, serverdir: Path) -> PlainDevpi:
        """Another server on a copy of the directory."""
        shutil.copytree(self.serverdir, serverdir)
        return PlainDevpi(serverdir)
