"""What engines say, and what it means: their last words, a failure, a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployer.engines.client import Client
from deployer.engines.dialects import DOCKER, PODMAN
from deployer.engines.failures import last_line
from deployer.engines.proc import mark, runs
from deployer.engines.timestamps import moment
from deployer.errors import EngineError, ImageUnavailable, UsageError
from deployer.host.runner import Completed, ProcessFailed, Runner


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no reason given"),
        ("cause\nSee 'docker run --help'.\n", "cause"),
        ('time="now" level=fatal msg="name \\"x\\"\\n is taken"', 'name "x" is taken'),
        (r'time="now" level=fatal msg="\x1b[31mred\a \U0001f600"', r"\x1b[31mred\a \U0001f600"),
    ],
)
def test_the_line_that_says_what_is_wrong(text: str, told: str) -> None:
    assert last_line(text) == told


@pytest.mark.parametrize(
    "since", ["9" * 12 + "d", "9" * 5000 + "s", "99999999d", "9" * 400 + "m", "tomorrow", "", "-1d"], ids=len
)
def test_no_time_at_all(since: str) -> None:
    with pytest.raises(UsageError, match="neither a time nor a duration"):
        moment(since)


def test_a_duration_is_so_long_ago() -> None:
    passed = datetime.now(UTC) - moment("1h30m")
    assert timedelta(minutes=89) < passed < timedelta(minutes=100)
    assert moment("2028-01-02T03:04:05+01:00") == datetime(2028, 1, 2, 2, 4, 5, tzinfo=UTC)
    with pytest.raises(UsageError, match="--older-than 90 days"):
        moment("90 days", "--older-than")


class Says(Runner):
    """A client that says ``stdout`` and ends well."""

    def __init__(self, stdout: str) -> None:
        super().__init__()
        self._stdout = stdout

    def run(self, argv, **_more):  # type: ignore[no-untyped-def]
        return Completed(argv=tuple(argv), returncode=0, stdout=self._stdout, stderr="")


@pytest.mark.parametrize("stdout", ["", "<html>", "{}", "null", "[1]", '["x"]', "[" * 200_000])
@pytest.mark.parametrize("ask", [Client.container, Client.image])
def test_an_answer_of_another_shape_is_told(stdout: str, ask: Callable[[Client, str], object]) -> None:
    with pytest.raises(EngineError):
        ask(Client(DOCKER, Says(stdout)), "demo")


def test_a_build_that_fails_is_told_with_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nseq 1 40; echo 'DEPRECATED: The legacy builder'; echo 'no space left'; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    heard: list[str] = []
    with pytest.raises(ImageUnavailable, match="it failed: no space left") as caught:
        Client(DOCKER, Runner()).streamed("build", on_line=heard.append, failed="it failed")
    assert heard == [*map(str, range(1, 41)), "no space left"]
    assert caught.value.details == (*map(str, range(30, 41)), "no space left")


def test_a_build_that_fails_does_not_tell_of_arguments_that_nobody_has_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake := tmp_path / "podman").write_text(
        "#!/bin/sh\n"
        """echo 'time="2026-01-01T00:00:00Z" level=warning msg="missing \\"PIP_INDEX_URL\\" build argument."'\n"""
        """echo 'time="2026-01-01T00:00:00Z" level=warning msg="the disk is nearly full"'\nexit 1\n"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ImageUnavailable, match="it failed: the disk is nearly full") as caught:
        Client(PODMAN, Runner()).streamed("build", on_line=lambda line: None, failed="it failed")
    assert len(caught.value.details) == 1


# Processes


def test_a_stream_ends_what_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.host.runner.GRACE", 0.1)
    stream = Runner().stream(("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done"))
    pid = int(next(stream))
    assert runs(pid)
    stream.close()  # type: ignore[attr-defined]
    assert not runs(pid)


def test_a_stream_that_fails_says_so_after_its_last_line() -> None:
    stream = Runner().stream(("sh", "-c", "echo last; exit 3"))
    assert next(stream) == "last"
    with pytest.raises(ProcessFailed, match="exit code 3"):
        next(stream)


def test_a_process_that_is_gone_has_no_mark() -> None:
    done = Runner().run(("sh", "-c", "echo $$"))
    assert mark(int(done.stdout), Runner()) == ""
    assert mark(1, Runner()) not in ("", mark(1, Runner()) + "x")
