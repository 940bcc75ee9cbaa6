"""Bodies of upstreams: decoded within bounds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from deployer.server.upstream.body import Body, InvalidBody
from deployer.server.upstream.client import _Observed
from deployer.server.upstream.health import Upstream


def fed(body: Body, data: bytes, *, step: int = 7) -> Body:
    for at in range(0, len(data), step):
        assert list(body.feed(data[at : at + step]))[-1] == len(body.decoded)
    return body


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("", bytes), ("identity", bytes), ("gzip", gzip.compress), ("X-Gzip", gzip.compress), ("deflate", zlib.compress)],
)
@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_a_body_arrives_as_it_was_sent(encoding: str, encode: Callable[[bytes], bytes], size: int) -> None:
    plain = bytes(range(256)) * 4
    body = fed(Body(encoding, most=1000), encode(plain[:size]))
    assert (bytes(body.decoded), body.is_whole) == (plain[:size], True)


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [("", bytes(1001)), ("gzip", gzip.compress(bytes(1001))), ("gzip", gzip.compress(bytes(100 << 20)))],
    ids=["plain", "encoded", "expanding"],
)
def test_a_body_has_a_bound_encoded_and_decoded(encoding: str, sent: bytes) -> None:
    body = Body(encoding, most=1000)
    with pytest.raises(InvalidBody, match="more than 1000 bytes"):
        fed(body, sent, step=1 << 16)
    assert len(body.decoded) <= 1000


@pytest.mark.parametrize("sent", [bytes(1001), gzip.compress(bytes(1001))], ids=["plain", "encoded"])
def test_an_error_that_is_kept_keeps_nothing_of_the_body(sent: bytes) -> None:
    with pytest.raises(InvalidBody) as kept, Body("gzip" if sent[0] else "", most=1000) as body:
        fed(body, sent, step=100)
    assert kept.tb is not None
    assert not body.decoded


@pytest.mark.parametrize(("encoding", "sent"), [("br", b""), ("gzip, gzip", b""), ("gzip", b"no gzip")])
def test_what_cannot_be_decoded_is_invalid(encoding: str, sent: bytes) -> None:
    with pytest.raises(InvalidBody):
        fed(Body(encoding, most=1000), sent)


def test_a_body_that_breaks_off_is_seen() -> None:
    assert not fed(Body("gzip", most=1000), gzip.compress(bytes(900))[:-9]).is_whole


class _Pieces(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield bytes(100)


@pytest.mark.parametrize(
    ("headers", "room", "came"), [({}, True, 10), ({"Content-Length": "1001"}, True, 0), ({}, False, 0)]
)
def test_a_file_without_an_end_breaks_off(headers: dict[str, str], room: bool, came: int) -> None:
    response = httpx.Response(200, headers=headers, request=httpx.Request("GET", "http://localhost/"))
    file = _Observed(_Pieces(), Upstream("http://localhost"), response, most=1000, has_room=lambda: room)
    pieces = []
    with pytest.raises((httpx.DecodingError, httpx.ReadError)):
        pieces.extend(file)
    assert len(pieces) == came
