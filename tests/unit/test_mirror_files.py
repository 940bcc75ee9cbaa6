"""Files of upstreams: what is kept, what is refused, and what a client gets meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

pytest.importorskip("devpi_server")

from deployer.server.cdn import OPEN_FILE
from deployer.server.devpi.kept import KeptFile
from deployer.server.devpi.links import place
from deployer.server.mirrors import files as module
from deployer.server.mirrors.files import FileRefused, FileResponse, Found, RemoteFiles
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.page import storable

MIRROR = Mirror(name="root/pypi", url="https://index.example.com/simple/", expiry=1800, credentials=None)
MODIFIED = "Sat, 28 Nov 2026 12:00:00 GMT"
LOGIN = b"<html><body>Please log in</body></html>"


def wheel() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("demo/__init__.py", os.urandom(300_000).hex())
    return made.getvalue()


def sdist() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("demo-1.0/PKG-INFO")
        member.size = 200_000
        archive.addfile(member, io.BytesIO(os.urandom(200_000)))
    return made.getvalue()


WHEEL, SDIST = wheel(), sdist()


@dataclass
class Response:
    """An answer of an upstream. ``breaks``: raised after the content."""

    content: bytes = WHEEL
    status_code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks: Exception | None = None
    reason_phrase: str = ""
    piece: int = 10_000

    def iter_raw(self, size: int | None = None) -> Iterator[bytes]:
        for start in range(0, len(self.content), self.piece):
            yield self.content[start : start + self.piece]
        if self.breaks is not None:
            raise self.breaks


class Bench:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Response] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.open = 0
        self.kept: list[dict[str, Any]] = []
        self.renewed: list[Found] = []
        self.modified: str | None = None
        self.stored, self.spools = directory / "+files", directory / "spool"
        self.spools.mkdir()
        xom: Any = SimpleNamespace(config=SimpleNamespace(server_path=directory))
        indexes: Any = SimpleNamespace(
            authorization=lambda mirror: "Basic x", try_others=lambda mirror, challenge: False
        )
        client: Any = SimpleNamespace(stream=self._stream)
        self.remote = RemoteFiles(xom, client, indexes, self.spools)
        self.remote.on_kept = self.renewed.append
        inside = SimpleNamespace(
            keep_files=self._keep, facts=lambda xom, paths: dict.fromkeys(paths, (1, self.modified))
        )
        monkeypatch.setattr(module, "inside", lambda: inside)

    def _stream(self, stack: contextlib.ExitStack, method: str, url: str, **more: Any) -> Any:
        assert more.pop("allow_redirects") is True
        self.asked.append((method, url, more["extra_headers"]))
        self.open += 1
        stack.callback(self._closed)
        return self.answers.pop(0)

    def _closed(self) -> None:
        self.open -= 1

    def _keep(self, xom: Any, files: Sequence[KeptFile]) -> None:
        for one in files:
            told = {key.name: getattr(one, key.name) for key in fields_of(one)}
            if (content := told.pop("content")) is not None:
                target = self.stored / one.place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(content.devpi_srcpath, target)
            del told["index"]
            self.kept.append({**told, "path": one.place})

    def fetch(self, found: Found, *answers: Response) -> tuple[FileResponse, bytes]:
        self.answers = list(answers)
        response = self.remote.fetch(found)
        return response, self.read(response)

    @staticmethod
    def read(response: FileResponse) -> bytes:
        """The body as a client gets it: from the spool where there is one."""
        pieces = list(response.app_iter)
        if response.spool is None:
            return b"".join(pieces)
        with response.spool as spool:
            content = spool.read()
        assert len(content) == sum(map(len, pieces))
        return content

    def content(self, found: Found) -> bytes | None:
        path = self.stored / found.mirror.name / found.path
        return path.read_bytes() if path.exists() else None

    def assert_nothing_left(self) -> None:
        assert (self.open, list(self.spools.iterdir())) == (0, [])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.assert_nothing_left()


def found(
    content: bytes = WHEEL, *, name: str = "demo-1.0-py3-none-any.whl", hashed: bool = True, **fields: Any
) -> Found:
    hashes = {"sha256": hashlib.sha256(content).hexdigest()} if hashed else {}
    file = {"filename": name, "url": f"https://files.example.com/{name}?sign=1", "hashes": hashes, **fields}
    return Found(MIRROR, "demo", file, place(file))


# Whole files


def test_a_file_is_sent_and_kept(bench: Bench) -> None:
    one = found(**{"requires-python": ">=3", "unknown": [1]})
    headers = {"Content-Length": str(len(WHEEL)), "Last-Modified": MODIFIED}
    response, body = bench.fetch(one, Response(headers=headers))
    assert body == bench.content(one) == WHEEL
    assert response.headers == {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "X-Accel-Buffering": "no",
        "Cache-Control": OPEN_FILE,
        **headers,
    }
    sent = {"Accept-Encoding": "identity", "Authorization": "Basic x"}
    assert bench.asked == [("GET", one.file["url"], sent)]
    (kept,) = bench.kept
    assert kept == {
        "path": f"root/pypi/{one.path}",
        "project": "demo",
        "file": storable(one.file),
        "digests": {"sha256": hashlib.sha256(WHEEL).hexdigest()},
        "size": len(WHEEL),
        "last_modified": MODIFIED,
    }
    assert bench.renewed == [one]


def test_a_client_gets_the_first_bytes_before_the_last_ones_come(bench: Bench) -> None:
    bench.answers = [Response()]
    response = bench.remote.fetch(found())
    assert response.spool is not None
    first = next(response.app_iter)
    assert response.spool.read() == first == WHEEL[:10_000]
    assert bench.kept == []
    response.spool.close()
    cast(Any, response.app_iter).close()


def test_an_answer_that_nobody_reads_leaves_nothing(bench: Bench) -> None:
    bench.answers = [Response()]
    response = bench.remote.fetch(found())
    assert bench.open == 1
    assert response.spool is not None
    response.spool.close()
    response.close()
    assert bench.kept == []


def test_a_file_that_was_kept_a_moment_ago_is_not_asked_for(bench: Bench) -> None:
    bench.fetch(found(), Response())
    response, body = bench.fetch(found())
    assert (body, response.headers["Content-Length"], len(bench.asked)) == (WHEEL, str(len(WHEEL)), 1)


@pytest.mark.parametrize("content", [b"", b"P", b"PK\x05\x06" + bytes(18)])
def test_a_small_file_is_kept(content: bytes, bench: Bench) -> None:
    response, body = bench.fetch(found(content), Response(content, piece=1))
    assert (body, bench.content(found(content))) == (content, content)
    assert response.status_code == 200


@pytest.mark.parametrize("kind", ["sha512", "md5", "sha1", "blake2b"])
def test_a_file_is_checked_by_any_hash(kind: str, bench: Bench) -> None:
    hashes = {kind: hashlib.new(kind, WHEEL).hexdigest()}
    assert bench.fetch(found(hashes=hashes), Response())[1] == WHEEL
    with pytest.raises(FileRefused, match="another hash"):
        bench.fetch(found(hashes={kind: hashlib.new(kind, b"x").hexdigest()}), Response())
    assert len(bench.kept) == 1


def test_another_file_is_sent_but_not_kept(bench: Bench) -> None:
    """The client checks it, too; what it has got is what the upstream sends."""
    bench.answers = [Response(WHEEL + b"x")]
    response = bench.remote.fetch(found())
    with pytest.raises(FileRefused, match="another hash"):
        bench.read(response)
    assert response.spool is not None
    response.spool.close()
    assert (bench.kept, bench.content(found())) == ([], None)


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("breaks", [None, httpx.ReadError("gone")])
def test_a_short_body_is_not_kept(hashed: bool, breaks: Exception | None, bench: Bench) -> None:
    headers = {"Content-Length": str(len(WHEEL))}
    bench.answers = [Response(WHEEL[:-1000], headers=headers, breaks=breaks)]
    response = bench.remote.fetch(found(hashed=hashed))
    assert response.headers["Content-Length"] == str(len(WHEEL))  # so the client sees it, too
    with pytest.raises((FileRefused, httpx.ReadError)):
        bench.read(response)
    assert response.spool is not None
    response.spool.close()
    assert (bench.kept, bench.content(found())) == ([], None)


def test_a_body_that_breaks_off_at_once_is_refused(bench: Bench) -> None:
    for ask in (bench.remote.fetch, lambda one: bench.remote.part(one, "bytes=0-1")):
        bench.answers = [Response(b"", breaks=httpx.ReadError("gone"))]
        with pytest.raises(FileRefused, match="breaks off"):
            ask(found())


@pytest.mark.parametrize(
    ("status", "for_client"), [(404, 404), (410, 404), (403, 502), (401, 502), (500, 502), (304, 502), (206, 502)]
)
def test_what_an_upstream_refuses(status: int, for_client: int, bench: Bench) -> None:
    for ask in (bench.remote.fetch, bench.remote.head):
        bench.answers = [Response(status_code=status)]
        with pytest.raises(FileRefused) as caught:
            ask(found())
        assert caught.value.status == for_client


def test_an_upstream_that_does_not_answer(bench: Bench) -> None:
    bench.answers = [Response(status_code=-1, reason_phrase="it hangs")]
    with pytest.raises(FileRefused, match="it hangs"):
        bench.remote.fetch(found())


@pytest.mark.parametrize(
    "given", ["", "yesterday", "0", "Sat, 99 Nov 2026 12:00:00 GMT", "Sat, 28 Nov 99999 12:00:00 GMT"]
)
def test_a_time_that_is_none_is_now(given: str, bench: Bench) -> None:
    response, _ = bench.fetch(found(), Response(headers={"Last-Modified": given}))
    assert response.headers["Last-Modified"].endswith("GMT")
    assert response.headers["Last-Modified"] == bench.kept[0]["last_modified"] != given


# Encoded on the way


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
@pytest.mark.parametrize("hashed", [False, True])
def test_what_is_compressed_on_the_way_is_decoded(encoding: str, hashed: bool, bench: Bench) -> None:
    encoded = zlib.compress(WHEEL) if encoding == "deflate" else gzip.compress(WHEEL)
    one = found(hashed=hashed)
    headers = {"Content-Encoding": encoding, "Content-Length": str(len(encoded))}
    response, body = bench.fetch(one, Response(encoded, headers=headers))
    assert body == bench.content(one) == WHEEL
    assert response.headers["Content-Length"] == str(len(WHEEL))
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("hashed", [False, True])
def test_an_sdist_that_is_labelled_as_compressed_stays_as_it_is(hashed: bool, bench: Bench) -> None:
    one = found(SDIST, name="demo-1.0.tar.gz", hashed=hashed)
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(SDIST))}
    assert bench.fetch(one, Response(SDIST, headers=headers))[1] == bench.content(one) == SDIST


@pytest.mark.parametrize("hashed", [False, True])
def test_an_sdist_that_is_compressed_once_more_is_decoded_once(hashed: bool, bench: Bench) -> None:
    one = found(SDIST, name="demo-1.0.tar.gz", hashed=hashed)
    response = Response(gzip.compress(SDIST), headers={"Content-Encoding": "gzip"})
    assert bench.fetch(one, response)[1] == bench.content(one) == SDIST


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(WHEEL)[:-20]),
        ("br", b"\x0b\x02\x80hello\x03"),
        ("gzip, br", gzip.compress(WHEEL)),
    ],
)
def test_what_is_not_encoded_as_it_says_is_refused(encoding: str, content: bytes, hashed: bool, bench: Bench) -> None:
    with pytest.raises(FileRefused, match="not encoded as its header says"):
        bench.fetch(found(hashed=hashed), Response(content, headers={"Content-Encoding": encoding}))
    assert bench.kept == []


def test_a_body_that_expands_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", 3 << 20)
    with pytest.raises(FileRefused, match="too large"):
        bench.fetch(found(), Response(gzip.compress(bytes(9 << 20)), headers={"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 16 << 16, 5 << 20])
def test_bodies_of_round_sizes_are_decoded_to_their_end(size: int, bench: Bench) -> None:
    content = bytes(size)
    one = found(content, name="demo.bin")
    assert len(bench.fetch(one, Response(gzip.compress(content), headers={"Content-Encoding": "gzip"}))[1]) == size


# Without a hash


@pytest.mark.parametrize(
    "name", ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz", "demo-1.0.tar.bz2", "demo-1.0.tar.xz", "D.ZIP"]
)
@pytest.mark.parametrize("content", [LOGIN, b"", b"P"])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_login_page_is_no_file(name: str, content: bytes, encoded: bool, bench: Bench) -> None:
    response = Response(gzip.compress(content), headers={"Content-Encoding": "gzip"}) if encoded else Response(content)
    with pytest.raises(FileRefused, match="no such file"):
        bench.fetch(found(name=name, hashed=False), response)
    assert bench.kept == []


def test_a_file_of_another_kind_is_taken_as_it_is_or_decoded(bench: Bench) -> None:
    one = found(LOGIN, name="demo-1.0.exe", hashed=False)
    assert bench.fetch(one, Response(LOGIN))[1] == LOGIN
    other = found(LOGIN, name="demo-2.0.exe", hashed=False)
    assert bench.fetch(other, Response(gzip.compress(LOGIN), headers={"Content-Encoding": "gzip"}))[1] == LOGIN


@pytest.mark.parametrize("name", ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.bz2"])
def test_a_file_that_is_not_compressed_although_it_says_so_stays_as_it_is(name: str, bench: Bench) -> None:
    content = WHEEL if name.endswith(".whl") else b"BZh9x"
    one = found(content, name=name, hashed=False)
    assert bench.fetch(one, Response(content, headers={"Content-Encoding": "gzip"}))[1] == content


def test_a_file_without_a_hash_is_not_for_ever(bench: Bench) -> None:
    response, _ = bench.fetch(found(hashed=False), Response())
    assert response.headers["Cache-Control"] == "no-cache"


def test_a_file_without_a_hash_is_looked_for_again_after_the_expiry(bench: Bench) -> None:
    one = found(hashed=False)
    assert not bench.remote.is_due(MIRROR, one.path)
    bench.fetch(one, Response())
    assert not bench.remote.is_due(MIRROR, one.path)
    eager = replace(MIRROR, expiry=0)
    assert bench.remote.is_due(eager, one.path)
    assert not bench.remote.is_due(eager, found().path)  # it has a hash
    again = replace(one, mirror=eager)
    bench.modified = MODIFIED
    new = WHEEL + b"x"
    assert bench.fetch(again, Response(new))[1] == bench.content(one) == new
    assert bench.asked[-1][2]["If-Modified-Since"] == MODIFIED


@pytest.mark.parametrize("known", [MODIFIED, "2026-11-28T12:00:00Z"])
def test_a_file_that_is_not_modified_stays(known: str, bench: Bench) -> None:
    one = replace(found(hashed=False), mirror=replace(MIRROR, expiry=0))
    bench.fetch(one, Response())
    stored = bench.stored / "root/pypi" / one.path
    os.utime(stored, (1, 1))
    bench.modified = known  # as devpi-server 6 and 7 have it
    response, _ = bench.fetch(one, Response(status_code=304))
    assert (response.status_code, bench.asked[-1][2]["If-Modified-Since"]) == (304, MODIFIED)
    assert (bench.content(one), len(bench.kept), stored.stat().st_mtime > 1) == (WHEEL, 1, True)


# Parts and heads


def test_a_range_is_passed_on_and_nothing_is_kept(bench: Bench) -> None:
    headers = {"Content-Range": "bytes 5-9/1000", "Content-Length": "5", "ETag": '"x"', "Set-Cookie": "a=b"}
    bench.answers = [Response(b"01234", 206, headers)]
    response = bench.remote.part(found(), "bytes=5-9")
    assert (response.status_code, bench.read(response), bench.kept) == (206, b"01234", [])
    assert bench.asked[0][2]["Range"] == "bytes=5-9"
    assert (response.headers["Content-Range"], response.headers["Content-Length"]) == ("bytes 5-9/1000", "5")
    assert not {"ETag", "Set-Cookie"} & response.headers.keys()


def test_a_range_that_the_file_does_not_have(bench: Bench) -> None:
    bench.answers = [Response(b"", 416, {"Content-Range": "bytes */1000"})]
    response = bench.remote.part(found(), "bytes=5000-")
    assert (response.status_code, response.headers["Content-Range"]) == (416, "bytes */1000")
    response.close()


def test_where_there_are_no_ranges_the_whole_file_comes(bench: Bench) -> None:
    bench.answers = [Response()]
    response = bench.remote.part(found(), "bytes=5-9")
    assert (response.status_code, bench.read(response), bench.content(found())) == (200, WHEEL, WHEEL)


def test_a_range_of_encoded_bytes_is_none(bench: Bench) -> None:
    bench.answers = [
        Response(b"xxxxx", 206, {"Content-Encoding": "gzip", "Content-Range": "bytes 5-9/1000"}),
        Response(),
    ]
    response = bench.remote.part(found(), "bytes=5-9")
    assert (response.status_code, bench.read(response)) == (200, WHEEL)


def test_a_range_that_breaks_off(bench: Bench) -> None:
    bench.answers = [Response(b"01", 206, {"Content-Range": "bytes 5-9/1000"}, breaks=httpx.ReadError("gone"))]
    with pytest.raises(FileRefused, match="breaks off"):
        bench.read(bench.remote.part(found(), "bytes=5-9"))


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_range_that_is_refused(status: int, bench: Bench) -> None:
    bench.answers = [Response(status_code=status)]
    with pytest.raises(FileRefused):
        bench.remote.part(found(), "bytes=0-1")


def test_the_head_of_a_file_whose_size_is_known_asks_nobody(bench: Bench) -> None:
    assert bench.remote.head(found(size=12))["Content-Length"] == "12"
    assert bench.asked == []


@pytest.mark.parametrize("size", [None, "12", -1, 1 << 70, True, 1.5])
def test_the_head_of_another_file_asks_for_no_byte(size: Any, bench: Bench) -> None:
    bench.answers = [Response(headers={"Content-Length": "7", "Last-Modified": MODIFIED, "ETag": '"x"'})]
    headers = bench.remote.head(found(size=size))
    assert (headers["Content-Length"], headers["Last-Modified"], "ETag" in headers) == ("7", MODIFIED, False)
    assert bench.asked[0][0] == "HEAD"


def test_the_length_of_encoded_bytes_is_not_that_of_the_file(bench: Bench) -> None:
    bench.answers = [Response(headers={"Content-Length": "7", "Content-Encoding": "gzip"})]
    assert "Content-Length" not in bench.remote.head(found())


# Small answers


def test_a_small_answer_is_decoded(bench: Bench) -> None:
    bench.answers = [Response(gzip.compress(b"Name: demo"), headers={"Content-Encoding": "gzip"})]
    assert bench.remote.small(MIRROR, "https://files.example.com/x", most=100)[2] == b"Name: demo"


@pytest.mark.parametrize(
    "response",
    [
        Response(bytes(101)),
        Response(gzip.compress(bytes(101)), headers={"Content-Encoding": "gzip"}),
        Response(gzip.compress(b"x")[:-4], headers={"Content-Encoding": "gzip"}),
        Response(b"x", headers={"Content-Encoding": "gzip"}),
        Response(b"x", headers={"Content-Encoding": "br"}),
        Response(b"x", breaks=httpx.ReadTimeout("it hangs")),
        Response(b"x", status_code=-1),
    ],
)
def test_a_small_answer_that_can_not_be_used(response: Response, bench: Bench) -> None:
    bench.answers = [response]
    with pytest.raises(FileRefused):
        bench.remote.small(MIRROR, "https://files.example.com/x", most=100)


def test_devpi_is_told_of_a_file_that_is_not_here(bench: Bench) -> None:
    one = found(size="wrong")
    bench.remote.enter(one)
    assert (bench.kept[0]["file"], bench.kept[0]["size"], bench.content(one)) == (storable(one.file), 0, None)
