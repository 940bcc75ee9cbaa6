"""Range requests of clients, our responses, and the responses of upstreams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.mirrors.ranges import Answer, Piece, Range, RangesUnsupported, content_range

DATE = "Sat, 28 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-0", Range(0, 0)),
        ("bytes=5-9", Range(5, 9)),
        ("bytes=5-", Range(5)),
        ("bytes=-9", Range(-9)),
        ("BYTES=5-9", Range(5, 9)),
        (" bytes=5-9 ", Range(5, 9)),
        ("bytes= 5-9 ,", Range(5, 9)),
        ("bytes=007-009", Range(7, 9)),
    ],
)
def test_one_range_is_understood(header: str, asked: Range) -> None:
    assert Range.of(header) == asked


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=--5",
        "bytes=9-5",
        "bytes=a-b",
        "bytes=0x1-0x2",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=1.0-2",
        "bytes=٣-٤",
        "bytes=0-1,3-4",
        "bytes=0-1,-1",
        "lines=0-1",
        "bytes 0-1/5",
        "bytes=0-" + "9" * 5000,
        "bytes=0-1\nX: y",
    ],
)
def test_all_else_is_ignored(header: str) -> None:
    assert Range.of(header) is None


def test_a_range_of_another_state_of_the_file_is_ignored() -> None:
    validators = ('"abc"', DATE)
    for same in ('"abc"', DATE, ""):
        assert Range.of("bytes=0-4", if_range=same, validators=validators) == Range(0, 4)
    for other in ('"abd"', "abc", 'W/"abc"', DATE.replace("28", "27")):
        assert Range.of("bytes=0-4", if_range=other, validators=validators) is None
    assert Range.of("bytes=0-4", if_range='W/"abc"', validators=['W/"abc"']) is None


@pytest.mark.parametrize(
    ("header", "status", "sent", "content_range"),
    [
        ("", 200, b"0123456789", None),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=0-9", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=10-20", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
    ],
)
def test_what_is_sent(header: str, status: int, sent: bytes, content_range: str | None) -> None:
    file = b"0123456789"
    answer = Answer.of(Range.of(header), len(file))
    assert answer.status == status
    assert file[answer.start : answer.stop] == sent
    headers = dict(answer.headers)
    assert headers.pop("Content-Length") == str(len(sent))
    assert headers.pop("Accept-Ranges") == "bytes"
    assert headers == ({} if content_range is None else {"Content-Range": content_range})


def test_of_an_empty_file_no_range_is_there() -> None:
    for header in ("bytes=0-", "bytes=0-0", "bytes=-5"):
        assert Answer.of(Range.of(header), 0).status == 416
    assert Answer.of(None, 0).status == 200


@given(st.integers(0, 50), st.none() | st.integers(0, 50), st.integers(0, 50))
def test_a_range_is_asked_for_as_it_came(first: int, last: int | None, size: int) -> None:
    for asked in (Range(first, last), Range(-first - 1)):
        header = asked.header
        assert Range.of(header) == (None if last is not None and 0 <= last < asked.first else asked)
        answer = Answer.of(asked, size)
        assert 0 <= answer.start <= answer.stop <= size


@given(st.text(max_size=30) | st.from_regex(r"bytes=[0-9,\- ]*", fullmatch=True), st.integers(0, 100))
def test_any_header_has_an_answer(header: str, size: int) -> None:
    answer = Answer.of(Range.of(header), size)
    assert answer.status in (200, 206, 416)
    assert (answer.status == 206) == (answer.start < answer.stop and "Content-Range" in dict(answer.headers))


def test_a_piece_of_an_upstream() -> None:
    assert content_range(206, "bytes 2-4/10") == (2, 5, 10)
    assert Piece.of(206, "Bytes 2-4/10", b"234") == Piece(start=2, data=b"234", total=10)


@pytest.mark.parametrize(
    ("status", "header", "data"),
    [
        (200, "", b"0123456789"),
        (200, "bytes 2-4/10", b"234"),
        (206, "", b"234"),
        (206, "bytes 2-4/*", b"234"),
        (206, "bytes */10", b"234"),
        (206, "bytes 2-4/4", b"234"),
        (206, "bytes 4-2/10", b"234"),
        (206, "bytes 2-4/10", b"23"),
        (206, "bytes 2-4/10", b"2345"),
        (206, "bytes 2-" + "9" * 5000 + "/10", b"234"),
        (206, "lines 2-4/10", b"234"),
        (416, "bytes */10", b""),
    ],
)
def test_an_invalid_piece_is_refused(status: int, header: str, data: bytes) -> None:
    with pytest.raises(RangesUnsupported) as told:
        Piece.of(status, header, data)
    assert len(str(told.value)) < 200
