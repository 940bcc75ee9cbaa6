"""What ``deployer verify`` concludes from the access log, and what it blames when a client went past the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer.clients.client import Account, ClientSettings
from deployer.clients.downloads import Installer, Release, bypasses, installers
from deployer.operations.verify import Origin, trace

URL = "http://127.0.0.1:3141/root/dev/+simple/"
SETTINGS = ClientSettings(index_url=URL, timeout=60)
DEMO, LOCAL = Release("demo", "1.0"), Release("some-thing", "1.0+team.1")
AT = "/root/pypi/+f/000/0123456789abc"


def line(path: str, **fields: Any) -> str:
    return json.dumps({"path": f"{AT}/{path}", "status": 200, "bytes": 7, "from": "file", "fetched": "", **fields})


@pytest.mark.parametrize(
    ("lines", "origin", "count"),
    [
        ((), Origin.PAST, 0),
        ((line("demo-1.0-py3-none-any.whl"),), Origin.HERE, 7),
        ((line("demo-1.0-py3-none-any.whl", status=206),) * 2, Origin.HERE, 14),
        ((line("demo-1.0-py3-none-any.whl", fetched="no"),), Origin.UPSTREAM, 7),
        # The server fetched the file to read the metadata in it, and then had it.
        (
            (line("demo-1.0-py3-none-any.whl.metadata", fetched="no"), line("demo-1.0-py3-none-any.whl")),
            Origin.UPSTREAM,
            7,
        ),
        ((line("demo-1.0-py3-none-any.whl.metadata"),), Origin.PAST, 0),
        ((line("demo-1.0-py3-none-any.whl", status=404),), Origin.PAST, 0),
        ((line("demo-1.1-py3-none-any.whl"), line("demo_more-1.0-py3-none-any.whl")), Origin.PAST, 0),
        (("", "no JSON", "[]", "{}", line("x.whl"), line("demo-1.0-py3-none-any.whl")), Origin.HERE, 7),
    ],
)
def test_where_a_file_came_from(lines: tuple[str, ...], origin: Origin, count: int) -> None:
    (file,) = trace(lines, [DEMO])
    assert (file.origin, file.bytes) == (origin, count)


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("demo-1.0-py3-none-any.whl", DEMO),
        ("Some_Thing-1.0+team.1-1-cp311-cp311-linux_x86_64.whl", LOCAL),
        ("some.thing-1.0+team.1.dist-info", LOCAL),
    ],
)
def test_a_wheel_and_what_it_leaves_are_of_the_same_release(name: str, release: Release) -> None:
    assert Release.of(name) == release


def account(home: Path, **env: str) -> Account:
    return Account(env={"HOME": str(home), **env}, home=home, state=home / "state", platform="linux")


def installer(name: str, *, configured: bool = False) -> Installer:
    return Installer(name=name, program=(name,), configured=configured, variables={} if configured else {"X": "1"})


@pytest.mark.parametrize(
    ("name", "configured", "env", "blamed"),
    [
        ("pip", True, {"PIP_INDEX_URL": "https://other.example/simple/"}, "PIP_INDEX_URL"),
        ("pip", False, {"PIP_EXTRA_INDEX_URL": "https://other.example/simple/"}, "PIP_EXTRA_INDEX_URL"),
        ("uv", False, {"UV_INDEX": "https://other.example/simple/"}, "UV_INDEX"),
        ("uv", False, {"UV_FIND_LINKS": "/opt/wheels"}, "UV_FIND_LINKS"),
    ],
)
def test_a_variable_is_blamed(tmp_path: Path, name: str, configured: bool, env: dict[str, str], blamed: str) -> None:
    found = bypasses(installer(name, configured=configured), SETTINGS, account(tmp_path, **env), tmp_path)
    assert any(blamed in line for line in found), found


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        (".config/uv/uv.toml", '[[index]]\nurl = "https://other.example/simple/"\n', "index"),
        ("here/uv.toml", 'extra-index-url = ["https://other.example/simple/"]\n', "extra-index-url"),
        ("here/pyproject.toml", '[[tool.uv.index]]\nurl = "https://other.example/simple/"\n', "index"),
        ("here/pyproject.toml", '[tool.uv.pip]\nfind-links = ["/opt/wheels"]\n', "find-links"),
    ],
)
def test_a_file_of_uv_is_blamed(tmp_path: Path, file: str, text: str, key: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    here = tmp_path / "here"
    assert f"{tmp_path / file} has its own {key}" in bypasses(installer("uv"), SETTINGS, account(tmp_path), here)
    unread = account(tmp_path, UV_NO_CONFIG="1")
    assert bypasses(installer("uv"), SETTINGS, unread, here) == ()


@pytest.mark.parametrize("text", ["[[", f'[[index]]\nurl = "{URL}"\n', ""])
def test_a_damaged_file_is_not_blamed_nor_one_that_names_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "uv.toml").write_text(text)
    (tmp_path / "pyproject.toml").write_text("[tool.uv]\npip = 1\n")
    assert bypasses(installer("uv"), SETTINGS, account(tmp_path), tmp_path) == ()


def test_a_client_whose_file_names_the_index_gets_no_variable(tmp_path: Path) -> None:
    conf = tmp_path / ".config/pip/pip.conf"
    before = {one.name: one for one in installers(SETTINGS, account(tmp_path))}
    assert not before["pip"].configured
    assert before["pip"].variables["PIP_INDEX_URL"] == URL
    conf.parent.mkdir(parents=True)
    conf.write_text(f"[global]\nindex-url = {URL}\n")
    # A variable that overrides the file is what a verification is to find out.
    hidden = account(tmp_path, PIP_INDEX_URL="https://other.example/simple/")
    after = {one.name: one for one in installers(SETTINGS, hidden)}
    assert after["pip"].configured
    assert after["pip"].variables == {}
