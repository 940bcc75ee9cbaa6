"""The GitHub action and the GitLab template, run as their runners do: the second job downloads nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.ci_runner import BASH, GitHubJob, Store
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "ci/gitlab/deployer.yml"
PIP = f"{shlex.quote(sys.executable)} -m pip --disable-pip-version-check install --no-cache-dir --quiet"
PYTHON = """#!/bin/sh
# Like python3, but a venv is one that has this deployer already: pip need not reach an index.
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  ln -s {python} "$3/bin/python"
  printf '#!/bin/sh\\nexit 0\\n' >"$3/bin/pip"
  printf '#!/bin/sh\\nexec {python} -m deployer "$@"\\n' >"$3/bin/deployer"
  chmod +x "$3/bin/pip" "$3/bin/deployer"
  exit
fi
exec {python} "$@"
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("alpha", "1.0", requires=["beta"]), make_wheel("beta", "1.0")]) as running:
        yield running


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python3"
    path.write_text(PYTHON.format(python=shlex.quote(sys.executable)))
    path.chmod(0o755)
    return path


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_TRUSTED_HOST": "127.0.0.1",
    }


def wait_until_gone(name: str) -> None:
    """Until nothing of a deployment is left: no process that names its data, and no data."""
    data = f"/tmp/devpi-{os.getuid()}-{name}"
    marks = (data, f"deployer-{name}-ends", f"keeper {name}")
    deadline = time.monotonic() + PATIENCE
    while Path(data).exists() or any(mark in line for line in _command_lines() for mark in marks):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


class TestGitHub:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        (tmp_path / "store").mkdir()
        return Store(directory=tmp_path / "store")

    def job(self, directory: Path, store: Store) -> GitHubJob:
        """A hosted runner is a new machine, with the same paths."""
        if directory.exists():
            subprocess.run(["rm", "-r", str(directory)], check=True)
        return GitHubJob(temp=directory / "temp", store=store, env=environment(directory))

    def inputs(self, upstream: Upstream, python: Path) -> dict[str, str]:
        return {"upstream": upstream.simple_url, "transparent": "false", "python": str(python)}

    def test_the_second_job_downloads_nothing_and_saves_nothing(
        self, tmp_path: Path, store: Store, upstream: Upstream, python: Path
    ) -> None:
        runner = tmp_path / "runner"
        first = self.job(runner, store)
        started = first.uses(ROOT, self.inputs(upstream, python))
        assert started["restored"] == "0" and started["url"].startswith("http://127.0.0.1:")
        first.run(f"{PIP} --target target alpha")
        assert (first.temp / "target/beta-1.0.dist-info").is_dir()
        assert first.uses(ROOT / "save") == {"saved": "true"}
        assert "Saved for the next job: 2 files" in first.log
        assert "Saved for the next job" in (first.temp / "_summary.md").read_text()
        first.end()
        wait_until_gone(first.env["DEPLOYER_NAME"])
        assert store.keys[0].startswith("deployer-Linux-packages-") and len(store.keys) == 2

        upstream.forget()
        second = self.job(runner, store)
        assert second.uses(ROOT, self.inputs(upstream, python))["restored"] == "2"
        second.run(f"{PIP} --target target alpha")
        assert upstream.files() == 0
        assert second.uses(ROOT / "save") == {"saved": "false"}
        lock = second.temp / "lock of this job.txt"
        lock.write_text("beta==1.0\n")
        assert second.uses(ROOT / "save", {"locks": f"{lock}\n"}) == {"saved": "true"}
        assert "1 that this job does not need" in second.log
        second.end()
        wait_until_gone(second.env["DEPLOYER_NAME"])
        assert len(store.keys) == 3

    def test_a_job_that_fails_says_what_to_do_and_leaves_nothing_behind(
        self, tmp_path: Path, store: Store, upstream: Upstream, python: Path
    ) -> None:
        job = self.job(tmp_path / "runner", store)
        with pytest.raises(subprocess.CalledProcessError):
            job.uses(ROOT, {**self.inputs(upstream, python), "transparent": "true"})
        assert "has no https" in job.log and "'transparent: false'" in job.log
        job.kill()
        wait_until_gone(job.env["DEPLOYER_NAME"])
        assert {path.name for path in (job.temp / "deployer-state").rglob("*") if path.is_file()} <= {"lock"}


class TestGitLab:
    """``: | eval SCRIPT``, as GitLab's runner has a shell read a job; ``before_script`` and ``script`` are one."""

    def script(self, *lines: str) -> str:
        told = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))[".deployer"]
        given = [f"export {name}={shlex.quote(value)}" for name, value in told["variables"].items() if value]
        whole = "\n".join([*told["before_script"], *lines])
        return "\n".join(["set -e", *given, f": | eval {shlex.quote(whole)}", "exit 0"])

    def job(self, project: Path, upstream: Upstream, python: Path, number: int) -> dict[str, str]:
        return {
            **environment(project.parent),
            "CI_PROJECT_DIR": str(project),
            "CI_JOB_ID": f"{os.getpid()}{number}",
            "UPSTREAM": upstream.simple_url,
            "PYTHON": str(python),
        }

    def start(self, shell: list[str], env: dict[str, str], *lines: str) -> subprocess.Popen[str]:
        text = self.script(*lines).replace("export DEPLOYER_CI_PYTHON=python3", 'export DEPLOYER_CI_PYTHON="$PYTHON"')
        text = text.replace("set -e\n", 'set -e\nexport DEPLOYER_CI_UPSTREAM="$UPSTREAM"\n', 1)
        text = text.replace("export DEPLOYER_CI_TRANSPARENT=true", "export DEPLOYER_CI_TRANSPARENT=false")
        return subprocess.Popen(
            [*shell, "-c", text],
            env=env,
            cwd=env["CI_PROJECT_DIR"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        (tmp_path / "project").mkdir()
        return tmp_path / "project"

    def test_the_second_job_downloads_nothing(self, project: Path, upstream: Upstream, python: Path) -> None:
        shells: tuple[tuple[int, list[str], int], ...] = ((1, ["sh"], 0), (2, list(BASH), 3))
        for number, shell, code in shells:
            upstream.forget()
            env = self.job(project, upstream, python, number)
            with self.start(shell, env, f"{PIP} --target target{number} alpha", f"exit {code}") as job:
                out, _ = job.communicate(timeout=PATIENCE)
            assert job.returncode == code, out
            assert upstream.files() == (2 if number == 1 else 0), out
            assert "2 files" in out and "root/dev" in out, "what was saved and counted is printed"
            wait_until_gone(f"ci-{env['CI_JOB_ID']}")
            assert not Path(f"/tmp/deployer-{env['CI_JOB_ID']}").exists()
        assert {path.name for path in project.iterdir()} == {".deployer-ci", "target1", "target2"}

    def test_a_cancelled_job_leaves_nothing_behind(self, project: Path, upstream: Upstream, python: Path) -> None:
        env = self.job(project, upstream, python, 3)
        with self.start(list(BASH), env, "echo ready", "sleep 600") as job:
            assert job.stdout is not None
            assert any(line.strip() == "ready" for line in job.stdout)
            os.killpg(job.pid, signal.SIGKILL)
        wait_until_gone(f"ci-{env['CI_JOB_ID']}")
        subprocess.run(["rm", "-rf", f"/tmp/deployer-{env['CI_JOB_ID']}"], check=True)

    def test_the_service_names_its_index(self) -> None:
        told = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))[".deployer-service"]
        (service,) = told["services"]
        assert told["variables"]["PIP_INDEX_URL"] == f"http://{service['alias']}:3141/root/pypi/+simple/"
        assert told["variables"]["PIP_TRUSTED_HOST"] == service["alias"]


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-actions", ["action.yml", "save/action.yml"]), ("gitlab-ci", ["ci/gitlab/deployer.yml"])],
)
def test_the_files_are_valid(schema: str, files: list[str]) -> None:
    more = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *more]
    done = subprocess.run([*words, *(str(ROOT / file) for file in files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_actions_use_the_same_version_of_the_cache() -> None:
    used = set()
    for path in (ROOT / "action.yml", ROOT / "save/action.yml"):
        steps = yaml.safe_load(path.read_text(encoding="utf-8"))["runs"]["steps"]
        used |= {step["uses"].partition("@")[2] for step in steps if "uses" in step}
    assert len(used) == 1 and len(used.pop()) == 40, json.dumps(sorted(used))
