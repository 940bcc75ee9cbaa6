"""Questions to a directory: bounded in number and time, and remembered by a keyed hash."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from deployer.server.devpi import directory
from deployer.server.devpi.directory import ASKING, BUSY, FAILED, WAITING, Answers, NoAnswer

PATIENCE = 60.0


class Asked:
    """A directory that answers once it is let: ``right`` is the password of everybody."""

    def __init__(self) -> None:
        self.let, self.came = threading.Event(), threading.Semaphore(0)
        self.questions: list[tuple[str, str]] = []
        self.error: Exception | None = None

    def __call__(self, username: str, password: str) -> dict[str, Any]:
        self.questions.append((username, password))
        self.came.release()
        assert self.let.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return {"status": "ok", "groups": ["team"]} if password == "right" else {"status": "unknown"}


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.let.set()


def down(error: Exception) -> str:
    return "down" if isinstance(error, OSError) else ""


def reason(answers: Answers, username: str, password: str) -> str:
    with pytest.raises(NoAnswer) as caught:
        answers.of(username, password)
    assert caught.value.status_code == 503
    assert caught.value.headers["Retry-After"]
    return caught.value.reason


def test_an_answer_is_known_for_a_while(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.let.set()
    answers = Answers(asked, down)
    for _ in range(3):
        assert answers.of("alice", "right") == {"status": "ok", "groups": ["team"]}
        assert answers.of("alice", "wrong") == {"status": "unknown"}
    assert asked.questions == [("alice", "right"), ("alice", "wrong")]
    answers.of("alice", "right").pop("status")  # devpi changes what it gets
    assert answers.of("alice", "right")["status"] == "ok"
    monkeypatch.setattr(directory, "RIGHT", 0.0)
    fresh = Answers(asked, down)
    fresh.of("alice", "right")
    fresh.of("alice", "right")
    assert len(asked.questions) == 4


def test_no_password_is_kept(asked: Asked) -> None:
    asked.let.set()
    answers = Answers(asked, down)
    answers.of("alice", "right")
    assert "right" not in repr(vars(answers)).replace("until", "")


def test_wrong_ones_are_forgotten_first(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "REMEMBERED", 3)
    asked.let.set()
    answers = Answers(asked, down)
    answers.of("alice", "right")
    for number in range(10):
        answers.of("alice", f"guess {number}")
    asked.questions.clear()
    answers.of("alice", "right")
    assert asked.questions == []


def test_the_same_login_waits_for_one_question(asked: Asked) -> None:
    answers = Answers(asked, down, deadline=PATIENCE)
    with ThreadPoolExecutor(WAITING) as pool:
        logins = [pool.submit(answers.of, "alice", "right") for _ in range(WAITING)]
        assert asked.came.acquire(timeout=PATIENCE)
        asked.let.set()
        assert {login.result()["status"] for login in logins} == {"ok"}
    assert len(asked.questions) == 1


def test_few_are_asked_at_one_time(asked: Asked) -> None:
    answers = Answers(asked, down, deadline=PATIENCE)
    with ThreadPoolExecutor(ASKING) as pool:
        logins = [pool.submit(answers.of, f"user{number}", "right") for number in range(ASKING)]
        for _ in logins:
            assert asked.came.acquire(timeout=PATIENCE)
        assert reason(answers, "one more", "right") == BUSY
        asked.let.set()
        assert {login.result()["status"] for login in logins} == {"ok"}
    assert answers.of("one more", "right")["status"] == "ok"


def test_one_that_does_not_answer_is_not_asked_again_for_a_while(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "DOWN", PATIENCE * 60)
    answers = Answers(asked, down, deadline=0.01)
    assert "does not answer" in reason(answers, "alice", "right")
    assert "does not answer" in reason(answers, "bob", "right")
    assert asked.questions == [("alice", "right")]


def test_an_error_is_no_answer_and_only_silence_closes_the_door(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "DOWN", PATIENCE * 60)
    asked.let.set()
    answers = Answers(asked, down)
    asked.error = ValueError("an odd name")
    assert reason(answers, "odd\\name", "right") == FAILED
    asked.error = None
    assert answers.of("alice", "right")["status"] == "ok"
    asked.error = ConnectionRefusedError()
    assert "does not answer" in reason(answers, "bob", "right")
    asked.error = None
    assert "does not answer" in reason(answers, "carol", "right")
    assert answers.of("alice", "right")["status"] == "ok"  # known


def test_what_is_far_too_long_is_not_asked(asked: Asked) -> None:
    answers = Answers(asked, down)
    assert answers.of("a" * 100_000, "right") == {"status": "unknown"}
    assert answers.of("alice", "r" * 100_000) == {"status": "unknown"}
    assert asked.questions == []
