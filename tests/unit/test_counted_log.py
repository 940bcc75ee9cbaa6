"""What is counted of an access log that is moved away while nginx writes it: every line, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployer.server.nginx.statistics import Statistics
from deployer.server.secret_files import Private

LINE = {"index": "root/dev", "method": "GET", "path": "/root/dev", "status": 200, "bytes": 1}
LINE |= {"from": "devpi", "fetched": "", "kept": ""}
LARGE = 5 * len(json.dumps(LINE))


class Log:
    """An access log with somebody who counts it, one look at a time."""

    def __init__(self, directory: Path, *, max_files: int) -> None:
        self.private = Private(directory)
        self.path = self.private.access_log
        self.path.parent.mkdir()
        self.max_files = max_files
        self.statistics = self.counter()

    def counter(self) -> Statistics:
        return Statistics(self.private, max_bytes=LARGE, max_files=self.max_files)

    def write(self, lines: int, path: Path | None = None) -> None:
        with (path or self.path).open("a") as stream:
            stream.writelines(json.dumps(LINE) + "\n" for _ in range(lines))

    def look(self) -> int:
        """Requests counted so far, after another look."""
        self.statistics.finish()
        counts: dict[str, int] = self.statistics.counted()["indexes"].get("root/dev", {"requests": 0})
        return counts["requests"]

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()}


@pytest.fixture(params=[1, 2, 3])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return Log(tmp_path, max_files=request.param)


def test_every_line_is_counted_once_however_often_the_file_is_moved_away(log: Log) -> None:
    written = 0
    for _ in range(8):
        for lines in (7, 2):  # too many for one file, and a few for the next, which may get a lost one's number
            log.write(lines)
            written += lines
            assert log.look() == written
    assert len(log.files) <= log.max_files + 1


def test_a_worker_that_writes_on_to_the_moved_file_is_heard(log: Log) -> None:
    log.write(7)
    assert log.look() == 7
    moved = log.path.with_name("access.log.1")
    log.write(1)  # another worker has gone over
    assert log.look() == 8
    log.write(2, moved)
    assert log.look() == 10
    log.statistics = log.counter()
    log.write(1)
    assert log.look() == 11


def test_of_one_file_only_the_newest_stays(tmp_path: Path) -> None:
    log = Log(tmp_path, max_files=1)
    log.write(7)
    log.look()
    assert log.files == {"access.log.1"}  # what comes late would be lost with it
    log.write(1)
    log.look()
    assert log.look() == 8
    assert log.files == {"access.log"}


def test_what_an_older_release_had_read_is_not_counted_again(tmp_path: Path) -> None:
    log = Log(tmp_path, max_files=3)
    log.write(2)
    told = log.path.stat()
    log.private.statistics.write_text(json.dumps({"read": [told.st_ino, told.st_size]}))
    log.statistics = log.counter()
    log.write(1)
    assert log.look() == 1
