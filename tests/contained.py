"""The same server as in ``server_process``, in a container that ``deployer up`` made, for the same tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.integration.cli import Cli
from tests.server_process import PATIENCE, Server, request

PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
BOTH = (PROCESS, DOCKER)


class Contained(Server):
    """The container's server. It lives longer than a test, with the options that it was made with."""

    def __init__(self, cli: Cli) -> None:
        super().__init__(serverdir=cli.data, port=cli.port)
        self._cli = cli
        self._before = ("", "")

    @property
    def output(self) -> str:
        return self._docker("logs", self._cli.name)

    def start(self, *_more: str, umask: int = -1) -> Contained:
        """Have it run, after a stop or a kill, and return when it answers."""
        assert umask == -1
        self._docker("start", self._cli.name)
        return self.wait()

    def wait(self) -> Contained:
        deadline = time.monotonic() + PATIENCE
        while self.run_of_it() == self._before or not self.answers():
            assert time.monotonic() < deadline, self.output[-4000:]
            time.sleep(0.05)
        return self

    def send(self, number: signal.Signals) -> int:
        """SIGKILL the server from outside, which its engine then starts again; or stop the container by its engine."""
        self._before = self.run_of_it()
        if number == signal.SIGKILL:
            pid = int(self._before[0])
            assert pid > 1  # 0 would be this test itself
            os.kill(pid, number)
        else:
            self._docker("stop", self._cli.name)
        return 0

    def kill_container(self) -> None:
        """SIGKILL all of the container by its engine, which leaves it dead until somebody starts it."""
        self._before = self.run_of_it()
        self._docker("kill", self._cli.name)

    @property
    def front(self) -> str:
        """The number of nginx's master in the container; empty while there is none."""
        try:
            return (self.private / "run/nginx.pid").read_text().strip()
        except FileNotFoundError:
            return ""

    def kill_front(self) -> None:
        """SIGKILL the master of nginx and nothing else."""
        self._docker("exec", self._cli.name, "sh", "-c", f"kill -9 {self.front}")

    def end(self) -> None:
        """Nothing: the container is the module's."""

    def emptied(self) -> Contained:
        """Answering, and without any index."""
        self.start()
        auth = self.auth
        indexes = request(self.port, "GET", "/root", headers=auth)[1]["result"]["indexes"]
        for name, told in indexes.items():
            alone = ["volatile=True"] if told["type"] == "mirror" else ["volatile=True", "bases="]
            status, answer = request(self.port, "PATCH", f"/root/{name}", body=alone, headers=auth)
            assert status == 200, answer
        for name in indexes:
            assert request(self.port, "DELETE", f"/root/{name}", headers=auth)[0] in (200, 201)
        return self

    def run_of_it(self) -> tuple[str, str]:
        """What tells one run of the container from another."""
        pid, started = self._docker("inspect", "--format={{.State.Pid}} {{.State.StartedAt}}", self._cli.name).split()
        return pid, started

    @staticmethod
    def _docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr
