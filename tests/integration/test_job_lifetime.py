"""A deployment of the profile ``ci`` ends with the job that made it, however the job ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer.operations import lifetime
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

DEPLOYER = f"{sys.executable} -m deployer"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A home, and what a CI runner gives its jobs."""

    home: Path
    upstream: str
    name: str = "job"

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DEPLOYER_NAME": self.name,
            "DEPLOYER_UPSTREAM": self.upstream,
            "RUNNER_TRACKING_ID": f"github_{self.home.name}-{os.getpid()}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "A_TOKEN": "s3cret-of-the-job",
        }

    @property
    def state(self) -> Path:
        return self.home / ".local/state/deployer" / self.name

    @property
    def data(self) -> Path:
        return Path(f"/tmp/devpi-{os.getuid()}-{self.name}")

    def start(self, script: str) -> subprocess.Popen[str]:
        """A job in a process group of its own."""
        return subprocess.Popen(
            ["/bin/sh", "-ec", script],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str) -> str:
        with self.start(script) as job:
            out, _ = job.communicate(timeout=PATIENCE)
        assert job.returncode == 0, out
        return out

    def processes(self) -> list[str]:
        """All that a job of this runner has started, by what names its deployment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if (
                str(self.home) in words
                or str(self.data) in words
                or f"{self.name}-ends" in words
                or f"keeper {self.name}" in words
            ):
                found.append(words)
        return found

    def nothing_is_left(self) -> bool:
        left = {path.name for path in self.state.iterdir()} if self.state.exists() else set()
        return not self.processes() and not self.data.exists() and left <= {"lock"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("alpha", "1.0")]) as running:
        yield running


@pytest.fixture
def runner(tmp_path: Path, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Runner]:
    made = Runner(home=tmp_path, upstream=upstream.simple_url, name=f"job-{os.getpid()}-{tmp_path.name[-12:]}"[:60])
    yield made
    subprocess.run(
        [*DEPLOYER.split(), "down", "--purge", "--yes", "--wait", "30"], env=made.env, capture_output=True, check=False
    )


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def killed_by_group(number: int) -> Callable[[subprocess.Popen[str], Mapping[str, str]], None]:
    return lambda job, _env: os.killpg(job.pid, number)


def killed_by_environment(_job: subprocess.Popen[str], env: Mapping[str, str]) -> None:
    """As GitHub's runner does it at the end of a job: by a variable in the environment of its processes."""
    mark = f"RUNNER_TRACKING_ID={env['RUNNER_TRACKING_ID']}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(killed_by_group(signal.SIGINT), id="SIGINT"),
        pytest.param(killed_by_group(signal.SIGKILL), id="SIGKILL"),
        pytest.param(killed_by_environment, id="by the environment"),
    ],
)
def test_a_cancelled_job_leaves_nothing_behind(
    runner: Runner, end: Callable[[subprocess.Popen[str], Mapping[str, str]], None]
) -> None:
    with runner.start(f"{DEPLOYER} up --profile ci --quiet; sleep 600") as job:
        assert job.stdout is not None
        assert "+simple" in job.stdout.readline()
        assert runner.data.exists()
        end(job, runner.env)
    wait_until(runner.nothing_is_left)


def test_a_job_is_cancelled_while_the_index_starts(runner: Runner) -> None:
    for number, come in ((signal.SIGKILL, runner.state / lifetime.RECORD), (signal.SIGTERM, runner.data / ".sqlite")):
        with runner.start(f"{DEPLOYER} up --profile ci --quiet") as job:
            wait_until(come.exists)
            os.killpg(job.pid, number)
        wait_until(runner.nothing_is_left)


@pytest.mark.endurance
def test_a_job_is_killed_at_any_time(runner: Runner) -> None:
    for step in range(25):
        with runner.start(f"{DEPLOYER} up --profile ci --quiet") as job:
            time.sleep(0.1 * step)
            os.killpg(job.pid, signal.SIGKILL)
        wait_until(runner.nothing_is_left)


def test_the_index_outlives_its_step_and_ends_by_down(runner: Runner) -> None:
    """Each step of a job is a shell of its own. Nothing of the index keeps the first one waiting."""
    url = runner.run(f"{DEPLOYER} up --profile ci --quiet").strip()
    assert runner.run(f"{DEPLOYER} up --profile ci --quiet").strip() == url
    assert runner.run(f"{DEPLOYER} status --json").count('"running"')
    assert len([line for line in runner.processes() if "ends-with-this-process" in line]) == 1
    runner.run(f"{DEPLOYER} down")
    assert runner.nothing_is_left()


def test_another_profile_ends_the_limit(runner: Runner) -> None:
    runner.run(f"{DEPLOYER} up --profile ci --quiet")
    runner.run(f"{DEPLOYER} up --profile ci --quiet --set server.lifetime=unlimited")
    assert not [line for line in runner.processes() if "ends-with" in line or "keeper" in line]
    assert not (runner.state / lifetime.RECORD).exists()
    runner.run(f"{DEPLOYER} down")


def test_the_keeper_has_no_secret_of_the_job(runner: Runner) -> None:
    runner.run(f"{DEPLOYER} up --profile ci --quiet")
    keeper = json.loads((runner.state / lifetime.RECORD).read_bytes())["pid"]
    environ = Path(f"/proc/{keeper}/environ").read_bytes()
    assert b"s3cret" not in environ and b"RUNNER_TRACKING_ID" not in environ and b"HOME=" in environ


def test_a_log_without_a_record_goes_with_down(runner: Runner) -> None:
    left = runner.state / "process"
    left.mkdir(parents=True)
    (left / "server.log").write_text("a start that was killed early\n")
    (left / ".record.json.deployer").write_text("{")
    runner.run(f"{DEPLOYER} down --quiet")
    assert runner.nothing_is_left()
