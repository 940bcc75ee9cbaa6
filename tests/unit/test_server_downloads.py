"""Files on their way: one download for all who ask, and no more downloads than the server has open files for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from deployer.server.middleware import downloads as module
from deployer.server.middleware.downloads import Downloads, TooManyDownloads

PATIENCE = 60.0


class Answers:
    """Upstreams' answers, each of which ends when :attr:`go` is set."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), 0

    def __call__(self) -> Any:
        self.begun += 1
        return SimpleNamespace(status_code=200, headers={"Content-Length": "2"}, app_iter=self._body())

    def _body(self) -> Iterator[bytes]:
        yield b"o"
        assert self.go.wait(PATIENCE)
        yield b"k"


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.go.set()


def test_who_asks_for_the_same_file_joins_its_download(tmp_path: Path, answers: Answers) -> None:
    downloads = Downloads(tmp_path)
    first, began = downloads.join(("a",), answers)
    second, again = downloads.join(("a",), answers)
    assert (first is second, began, again) == (True, True, False)
    answers.go.set()
    assert first.wait_for_headers(PATIENCE)
    assert b"".join(first.body(lambda: True)) == b"ok"
    assert answers.begun == 1


def test_one_too_many_is_refused_until_another_one_ends(
    tmp_path: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    downloads = Downloads(tmp_path)
    under_way = [downloads.join((name,), answers)[0] for name in "ab"]
    with pytest.raises(TooManyDownloads):
        downloads.join(("c",), answers)
    assert downloads.join(("a",), answers)[0] is under_way[0]  # who joins needs nothing
    answers.go.set()
    for download in under_way:
        download.wait()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert downloads.join(("c",), answers)[1]
            break
        except TooManyDownloads:  # its thread is ending
            assert time.monotonic() < deadline
            time.sleep(0.01)
