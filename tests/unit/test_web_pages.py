"""What pages for browsers are made of: routes, commands, releases, metadata, the catalog. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.web import catalog, commands, metadata, releases, words
from deployer.server.web.catalog import Found
from deployer.server.web.routes import route

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def view_of(path: str, *, accept: str = BROWSER, method: str = "GET", installer: bool = False) -> str | None:
    found = route(method, path, accept=accept, installer=installer)
    return None if found is None else found.view


@pytest.mark.parametrize(
    ("path", "view"),
    [
        ("/", "home"),
        ("/root", "user"),
        ("/root/", "user"),
        ("/root/dev", "index"),
        ("/root/dev/", "index"),
        ("/root/dev/demo", "project"),
        ("/root/dev/demo/1.0", "project"),
        ("/root/dev/demo/1.0+local", "project"),
        ("/+web/search", "search"),
        ("/+web/packages", "packages"),
        ("/+web/static/web.css", "static"),
        ("/+web/static/../../etc/passwd", "missing"),
        ("/+web/anything", "missing"),
        ("/root/dev/+simple/", None),
        ("/root/dev/+simple/demo/", None),
        ("/root/pypi/+f/abc/def/demo-1.0.whl", None),
        ("/+api", None),
        ("/+deployer", None),
        ("/root/dev/demo/1.0/more", None),
    ],
)
def test_a_browser_gets_a_page_and_what_installers_read_stays(path: str, view: str | None) -> None:
    assert view_of(path) == view


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
        "text/html, application/json",
    ],
)
def test_clients_of_the_index_are_no_browsers(accept: str) -> None:
    assert all(view_of(path, accept=accept) is None for path in ("/", "/root/dev", "/root/dev/demo"))


def test_an_installer_is_none_either_and_nothing_is_written() -> None:
    assert view_of("/root/dev/demo/", accept="text/html", installer=True) is None
    assert view_of("/", method="POST") is None and view_of("/", method="HEAD") == "home"


# Commands


@pytest.mark.parametrize(
    ("base", "trusted"),
    [
        ("http://127.0.0.1:3141", False),
        ("http://localhost:3141", False),
        ("http://[::1]:3141", False),
        ("https://pypi.example.com/devpi", False),
        ("http://build.example.com:3141", True),
        ("http://192.0.2.7", True),
    ],
)
def test_pip_is_given_a_trusted_host_where_it_needs_one(base: str, trusted: bool) -> None:
    found = {one.key: one.text for one in commands.for_index(base, "root/dev")}
    assert f"{base}/root/dev/+simple/" in found["pip"]
    assert ("trusted-host" in found["pip"], "PIP_TRUSTED_HOST" in found["docker"]) == (trusted, trusted)
    assert ("--trusted-host" in commands.for_release(base, "root/dev", "demo", "")[0].text) == trusted


@given(version=st.text(min_size=1, max_size=30))
def test_a_version_is_one_word_of_every_command(version: str) -> None:
    for snippet in commands.for_release("http://127.0.0.1:1", "root/dev", "demo", version):
        assert f"demo=={version}" in shlex.split(snippet.text)


# Releases


def file(name: str, **more: Any) -> dict[str, Any]:
    return {
        "filename": name,
        "url": f"../../../pypi/+f/abc/0123456789abc/{name}",
        "hashes": {"sha256": "a" * 64},
    } | more


def made(*files: Mapping[str, Any], version: str = "", **fields: Any) -> releases.Project:
    data = {"meta": {"api-version": "1.1"}, "name": "demo", "files": list(files), **fields}
    return releases.project("demo", data, page="/root/dev/+simple/demo/", version=version, is_here=lambda path: False)


def test_versions_are_sorted_and_the_latest_is_what_installers_take() -> None:
    found = made(
        *(file(f"demo-{version}-py3-none-any.whl") for version in ("1.0", "1.10", "1.9", "2.0rc1")),
        file("demo-3.0-py3-none-any.whl", yanked="broken"),
        file("demo-nonsense-py3-none-any.whl"),
    )
    assert [one.version for one in found.releases] == ["3.0", "2.0rc1", "1.10", "1.9", "1.0", "nonsense"]
    assert found.latest == "1.10" and found.selected is not None and found.selected.version == "1.10"


def test_a_version_is_found_in_another_spelling_and_its_files_are_together() -> None:
    found = made(file("demo-1.0-py3-none-any.whl"), file("demo-1.0.0.tar.gz"), version="1")
    assert [row.filename for row in found.files] == ["demo-1.0-py3-none-any.whl", "demo-1.0.0.tar.gz"]
    assert made(file("demo-1.0.tar.gz"), version="7").selected is None


def test_a_file_is_at_its_own_address_and_served_by_its_index() -> None:
    (row,) = made(
        file("demo-1.0-py3-none-any.whl", size=1234, yanked="", **{"upload-time": "2024-05-01T10:00:00Z"})
    ).files
    assert row.path == "root/pypi/+f/abc/0123456789abc/demo-1.0-py3-none-any.whl" and row.index == "root/pypi"
    assert (row.size_words, row.uploaded, row.yanked, row.kind) == ("1.2 kB", "2024-05-01", "", "wheel for Python 3")


def test_what_rules_hold_back_is_named() -> None:
    held = {"filename": "demo-2.0.tar.gz", "until": None, "rule": "deny", "index": "root/pypi", "reason": "demo>=2"}
    found = made(file("demo-1.0.tar.gz"), _held=[held, "nonsense", *[held] * 40])
    assert found.held[0].reason == "demo>=2" and found.held[0].until == ""
    assert len(found.held) == releases.HELD_SHOWN and found.more_held == 21


@given(
    fields=st.dictionaries(
        st.sampled_from(["_held", "project-status", "versions"]), st.none() | st.text() | st.lists(st.text())
    ),
    more=st.dictionaries(
        st.sampled_from(["size", "upload-time", "yanked", "hashes", "url", "provenance", "requires-python"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
    ),
    name=st.text(min_size=1, max_size=40),
)
def test_nothing_that_an_upstream_says_is_believed(fields: dict[str, Any], more: dict[str, Any], name: str) -> None:
    found = made({**file(name), **more}, **fields)
    assert found.total_files == 1


# Metadata


def test_metadata_are_read_and_links_are_of_the_web() -> None:
    text = (
        "Metadata-Version: 2.4\nName: demo\nVersion: 1.0\nSummary: In order\nHome-page: https://example.com/demo\n"
        "Project-URL: Source, https://example.com/source\nProject-URL: Bad, javascript:alert(1)\n"
        'Requires-Dist: Other_Package>=2\nRequires-Dist: numpy; extra == "fast"\nRequires-Dist: not a requirement!\n'
        "\nThe description.\n"
    )
    found = metadata.parse(text.encode())
    assert found.summary == "In order" and found.description.strip() == "The description."
    assert [link.address for link in found.links] == ["https://example.com/demo", "https://example.com/source"]
    assert [(one.project, one.extra) for one in found.requires] == [("other-package", ""), ("numpy", "fast"), ("", "")]


@given(st.binary(max_size=400))
def test_damaged_metadata_are_read_as_far_as_they_go(content: bytes) -> None:
    assert isinstance(metadata.parse(b"Name: demo\n" + content), metadata.Metadata)


# The catalog


def indexes(**names: Sequence[str]) -> catalog.Catalog:
    configured: dict[str, dict[str, Any]] = {
        "root/pypi": {"type": "mirror"},
        "root/private": {"type": "mirror"},
        "root/team": {"type": "ordered", "bases": ["root/private", "root/pypi"], "owns": ["root/private:acme-*"]},
        "root/dev": {"type": "stage", "bases": ["root/team"]},
        "ann/own": {"type": "stage"},
    }
    upstreams = {"root/pypi": "https://up.example.com/simple/", "root/private": "https://own.example.com/"}
    return catalog.made(configured, upstreams, {name.replace("_", "/"): found for name, found in names.items()})


def test_a_newcomer_is_shown_the_index_that_reads_most() -> None:
    found = indexes()
    assert found.preferred is not None and found.preferred.name == "root/dev"
    assert found.preferred.reads == ("root/dev", "root/team", "root/private", "root/pypi")
    empty = catalog.made({}, {}, {}).preferred
    assert empty is None


def test_a_search_finds_the_same_name_first_then_beginnings() -> None:
    found = indexes(root_pypi=["other-demo", "demo-x", "demo", "zebra"], ann_own=["demo"])
    assert [one.name for one in found.search("demo")] == ["demo", "demo-x", "other-demo"]
    assert found.search("demo")[0] == Found("demo", ("ann/own", "root/pypi"))
    assert [one.name for one in found.search("demo", "ann/own")] == ["demo"]
    assert [one.name for one in found.like("demoo")] == ["demo"]
    assert found.through(Found("demo", ("ann/own",))) == "ann/own"
    assert found.through(Found("zebra", ("root/pypi",))) == "root/dev"


def test_bases_that_lead_back_or_nowhere_end() -> None:
    found = catalog.made({"a/a": {"bases": ["a/b", "no/where"]}, "a/b": {"bases": ["a/a"]}}, {}, {})
    assert found.indexes["a/a"].reads == ("a/a", "a/b") and found.preferred is not None


# Words


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (123_456, "123 kB"), (5 * 10**9, "5.0 GB")],
)
def test_sizes(count: int | None, text: str) -> None:
    assert words.size(count) == text


def test_a_share_is_never_rounded_up_to_all_of_it() -> None:
    assert [words.share(*pair) for pair in ((0, 0), (999, 1000), (3, 3), (1, 3))] == ["–", "99 %", "100 %", "33 %"]
