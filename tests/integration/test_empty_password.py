"""Root never has an empty password that anybody could use: not for a moment, from before a server's first start on."""

from __future__ import annotations

import base64
import http.client
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi
from tests.server_process import PATIENCE, login, request

PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
USER = 3141
"""Whom data belongs to on Docker, where root deploys."""
EMPTY = base64.b64encode(b"root:").decode()


@dataclass
class Pollers:
    """Three at once, each as fast as it is answered: a login, and both headers that carry a password."""

    port: int
    answers: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        tries = (self.log_in, self.send_basic, self.send_devpi)
        self._threads = [threading.Thread(target=self._poll, args=(one,), daemon=True) for one in tries]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _poll(self, once: object) -> None:
        while not self._over.is_set():
            try:
                self.answers[once()] += 1  # type: ignore[operator]
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)  # nobody listens yet

    def log_in(self) -> str:
        return f"login {login(self.port, '')[0]}"

    def send_basic(self) -> str:
        return self._known({"Authorization": f"Basic {EMPTY}"})

    def send_devpi(self) -> str:
        return self._known({"X-Devpi-Auth": EMPTY})

    def _known(self, headers: dict[str, str]) -> str:
        status, answer = request(self.port, "GET", "/+api", headers=headers)
        return f"{next(iter(headers))} {answer['result']['authstatus'][0] if status == 200 else status}"

    def wait_for_all(self) -> None:
        """Until each of the three was answered by devpi several times."""
        deadline = time.monotonic() + PATIENCE
        while sum(self.answers[good] + self.answers[bad] > 2 for good, bad in TOLD) < len(TOLD):
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.05)

    @property
    def let_in(self) -> list[str]:
        return [good for good, _ in TOLD if self.answers[good]]


TOLD = (
    ("login 200", "login 401"),
    ("Authorization ok", "Authorization noauth"),
    ("X-Devpi-Auth ok", "X-Devpi-Auth noauth"),
)
"""What devpi says to whom it lets in, and to whom it does not."""


def init_without_password(serverdir: Path) -> None:
    """What `devpi-init` makes unless it is told otherwise."""
    code = "from devpi_server.init import init; init()"
    words = [sys.executable, "-c", code, "--serverdir", str(serverdir), "--no-root-pypi"]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)


@pytest.fixture(params=[PROCESS, DOCKER])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(home=tmp_path, engine=request.param, network="host", upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


@pytest.mark.parametrize("data", ["none", "of a devpi whose root has no password"])
def test_an_empty_password_never_lets_anybody_in(cli: Cli, data: str) -> None:
    if data != "none":
        init_without_password(cli.data)
        if cli.engine == "docker":
            for path in (cli.data, *cli.data.rglob("*")):
                os.chown(path, USER, USER)
    with Pollers(cli.port) as pollers:
        done = cli.up("--no-pip")
        assert done.code == 0, done.err
        pollers.wait_for_all()
        assert cli.run("restart").code == 0
        pollers.answers.clear()
        pollers.wait_for_all()
    assert pollers.let_in == []


@pytest.mark.server
def test_the_pollers_are_let_in_where_they_can_be(tmp_path: Path) -> None:
    init_without_password(tmp_path / "devpi")
    plain = PlainDevpi(tmp_path / "devpi")
    try:
        with Pollers(plain.port) as pollers:
            plain.start()
            pollers.wait_for_all()
    finally:
        plain.stop()
    assert pollers.let_in == [good for good, _ in TOLD]
