"""What is adopted, decided without a server: names, hashes, conflicts, and addresses that are never asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.devpi import simple
from deployer.errors import Refused, UsageError, VerificationError
from deployer.operations.adopt import compared, project_of
from deployer.operations.adopt_sources import Offer, of_directory, of_url


def writing(content: bytes) -> Callable[[Path], None]:
    return lambda target: target.write_bytes(content) and None


def offer(filename: str, content: bytes = b"x", *, told: bool = True, origin: str = "") -> Offer:
    digest = hashlib.sha256(content).hexdigest()
    fetch = writing(content)
    return Offer(filename=filename, origin=origin or f"of {filename}", sha256=digest if told else "", fetch=fetch)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("filename", "project"),
    [
        ("Beta_Core-1.0-py3-none-any.whl", "beta-core"),
        ("beta-core-1.0.tar.gz", "beta-core"),
        ("beta.core-1.0.zip", "beta-core"),
        ("beta-1.0-py2.7.egg", ""),
        ("beta.tar.gz", ""),
        ("beta-1.0.tar.bz2", ""),
    ],
)
def test_the_project_of_a_file(filename: str, project: str) -> None:
    assert project_of(filename) == project


def test_offers_are_sorted_by_name_and_hash(tmp_path: Path) -> None:
    there = {"a-1.tar.gz": sha(b"a"), "b-1.tar.gz": sha(b"b")}
    offers = [
        offer("a-1.tar.gz", b"a"),
        offer("b-1.tar.gz", b"other", told=False),
        offer("c-1.tar.gz"),
        offer("d-1.egg"),
    ]
    found = compared(offers, there, tmp_path)
    assert [one.filename for one in found.new] == ["c-1.tar.gz"]
    assert [one.filename for one in found.same] == ["a-1.tar.gz"]
    assert [line.partition(" ")[0] for line in found.conflicts] == ["b-1.tar.gz"]
    assert list(found.invalid) == ["of d-1.egg"]
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_name_are_one_or_a_conflict(tmp_path: Path) -> None:
    twice = [offer("a-1.tar.gz", origin="x"), offer("a-1.tar.gz", origin="y", told=False)]
    assert [one.origin for one in compared(twice, {}, tmp_path).new] == ["x"]
    differing = [*twice, offer("a-1.tar.gz", b"z", origin="z")]
    found = compared(differing, {}, tmp_path)
    assert (found.new, len(found.conflicts)) == ((), 1)
    assert all(origin in found.conflicts[0] for origin in "xyz")


def test_a_file_that_does_not_come_is_left_out(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise VerificationError("checksum mismatch")

    broken = Offer(filename="a-1.tar.gz", origin="x", fetch=fail)
    found = compared([broken], {"a-1.tar.gz": sha(b"a")}, tmp_path)
    assert found.invalid == {"x": "checksum mismatch"}
    assert list(tmp_path.iterdir()) == []


def test_links_and_other_files_of_a_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x-1.tar.gz", "a/y-1.zip", "a/README", "z-1.egg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dead-1.tar.gz").symlink_to("nowhere")
    with of_directory(tmp_path) as offers:
        assert sorted(one.filename for one in offers) == ["x-1.tar.gz", "y-1.zip", "z-1.egg"]


@pytest.mark.parametrize(
    "url",
    [
        "https://INDEX.example.com/simple/",
        "https://index.example.com/other/",
        "http://mirror.example.com/pypi",
        "http://mirror.example.com/pypi/simple/flask/",
        "http://mirror.example.com",
    ],
)
def test_public_indexes_are_refused(url: str) -> None:
    upstreams = ("http://mirror.example.com/pypi/simple/", "")
    with pytest.raises(Refused), of_url(url, public="https://index.example.com/simple/", upstreams=upstreams):
        raise AssertionError("it was asked")


@pytest.mark.parametrize("url", ["http://", "http://h/?q=1", "http://h/#x", "http://h:port/"])
def test_an_address_that_is_none_is_a_wrong_command_line(url: str) -> None:
    with pytest.raises(UsageError), of_url(url, public="https://index.example.com/", upstreams=()):
        raise AssertionError("it was asked")


HTML = b"""<!DOCTYPE html><a href="alpha/">alpha</a> <a href="/simple/beta/">beta</a> <a href="../up/">up</a>
<a href="http://other.example.com/simple/gamma/">gamma</a> <a>none</a> <a href="#top">top</a>"""
URL = "http://h/simple/"


def test_pages_below_the_list_alone_are_asked() -> None:
    assert simple.projects(HTML, "text/html", url=URL) == (f"{URL}alpha/", f"{URL}beta/")
    told = b'{"projects": [{"name": "Al.pha"}, {"name": 1}, "x"]}'
    assert simple.projects(told, "application/vnd.pypi.simple.v1+json", url=URL) == (f"{URL}al-pha/",)


def test_files_of_both_forms_are_read() -> None:
    digest = "a" * 64
    page = f'<a href="../../packages/a-1.tar.gz#sha256={digest}">a</a><a href="b-1.tar.gz#md5=00">b</a>'.encode()
    a = simple.Link(filename="a-1.tar.gz", url="http://h/packages/a-1.tar.gz", sha256=digest)
    b = simple.Link(filename="b-1.tar.gz", url="http://h/simple/a/b-1.tar.gz")
    assert simple.files(page, "text/html", url=f"{URL}a/") == (a, b)
    told = f'{{"files": [{{"url": "{a.url}", "hashes": {{"sha256": "{digest}"}}}}, {{"url": 1}}]}}'.encode()
    assert simple.files(told, "application/json", url=f"{URL}a/") == (a,)
