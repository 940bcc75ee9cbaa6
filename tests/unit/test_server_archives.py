"""Archives of others: what is refused, and what is read of the rest."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile

import pytest

pytest.importorskip("devpi_server")

from deployer.server.devpi import archives, documentation
from tests.uploads import HOSTILE, LYING, PAGE, archive

GOOD = archive(("index.html", PAGE), ("static/style.css", b"body {}"), ("empty/", b""))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_in_ascii_and_has_no_members(name: str) -> None:
    why = archives.problem(io.BytesIO(HOSTILE[name]))
    assert why
    assert why.isascii()
    assert why.isprintable()
    with documentation.opened(io.BytesIO(HOSTILE[name])) as opened:
        assert opened.namelist() == []
        with pytest.raises(opened.FileNotExist):
            opened.getfile("index.html")


def test_a_good_archive_is_taken() -> None:
    assert archives.problem(io.BytesIO(GOOD)) == ""
    with documentation.opened(io.BytesIO(GOOD)) as opened:
        assert opened.getfile("index.html").read() == PAGE
        for missing in ("empty/", "../index.html", "/index.html", "none"):
            with pytest.raises(opened.FileNotExist):
                opened.getfile(missing)


def test_a_member_that_states_less_than_it_has_is_read_as_far_as_stated() -> None:
    checksum = contextlib.suppress(BadZipFile)  # that of 32 MiB
    with documentation.opened(io.BytesIO(LYING)) as opened, checksum:
        assert len(opened.read("index.html")) <= 10


def test_a_large_list_of_members_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.Documentation, "directory", 100)
    assert "list of members" in archives.problem(io.BytesIO(GOOD + b""))


def test_metadata_of_a_wheel_is_read_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from devpi_server import filestore
    from devpi_server.normalized import normalize_name

    monkeypatch.setattr(filestore, "ZipFile", filestore.ZipFile)
    archives.install()
    name = normalize_name("demo")
    for content, expected in ((b"Name: demo\n", b"Name: demo\n"), (bytes(archives.METADATA + 1), None)):
        wheel = archive(("demo-1.0.dist-info/METADATA", content))
        assert filestore.get_core_metadata(io.BytesIO(wheel), name, "1.0") == expected


def docs(content: bytes) -> Any:
    found = SimpleNamespace(entry=SimpleNamespace(file_open_read=lambda: io.BytesIO(content)))
    found._entries = documentation.entries(found)
    return found


def test_the_search_index_gets_title_and_text() -> None:
    assert documentation.page(docs(GOOD), "index") == {"title": "Manual", "text": "findable", "path": "index"}
    assert documentation.page(docs(GOOD), "gone") == {"title": "", "text": "", "path": "gone"}


def test_the_search_index_gets_sphinx_pages() -> None:
    page = b'{"title": "Usage", "body": "<p>Run &amp; wait</p>", "current_page_name": "usage"}'
    found = docs(archive(("usage.fjson", page), ("index.html", PAGE)))
    assert documentation.page(found, "usage") == {"title": "Usage", "text": "Run & wait", "path": "usage"}


def test_the_search_index_gets_a_bounded_part() -> None:
    large = bytes(range(256)) * (documentation.INDEXED_PAGE // 256 + 1)
    found = docs(archive(("large.html", large), *((f"{number}.html", PAGE) for number in range(1_500))))
    assert "large" not in found._entries
    assert len(found._entries) <= documentation.INDEXED_PAGES


@pytest.mark.parametrize(
    "markup", ["<" * 200_000, "<a " * 100_000, "<script>" * 30_000, "</" * 100_000, "<!--" * 60_000]
)
def test_hostile_markup_ends(markup: str) -> None:
    documentation.words(markup)


def test_a_page_that_is_no_json_has_no_text() -> None:
    for content in (b"{", b'{"title": ' + b"[" * 100_000):
        assert documentation.page(docs(archive(("a.fjson", content))), "a")["text"] == ""
