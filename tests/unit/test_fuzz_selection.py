"""Lock files that anybody may have written: they are read, or refused in one line, and nothing else happens."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.selection import LockedFile, NotReadable, Wanted, read
from deployer.selection.locks import FORMATS
from deployer.selection.pages import ProjectPage
from deployer.selection.requirements import parse
from deployer.selection.targets import Target

TARGETS = (Target("3.11", "linux"), Target("3.13", "windows"), Target("3.12", "aarch64-unknown-linux-musl"))
NAMES = ["", "..", "a/b", "a-1.tar.gz", "a-1-py3-none-any.whl", "https://h/a%2F..-1.whl", "http://[", "é", "x" * 300, 3]
ODD = st.sampled_from(NAMES)
FILE = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "file", "url", "path", "hash", "size"), ODD))
PACKAGE = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "A.b", "../x", "", 1]), "version": st.sampled_from(["1", "x", "", 2])},
    optional={
        "source": st.sampled_from([{"registry": "https://h/"}, {"git": "x"}, {"type": "legacy"}, 1]),
        "files": st.lists(FILE | ODD, max_size=3),
        "wheels": st.lists(FILE | ODD, max_size=3) | ODD,
        "sdist": FILE | ODD,
        "markers": st.sampled_from(["python_version < '3'", "][", {"main": "x == 1"}, 4]),
        "marker": st.sampled_from(["'dev' in dependency_groups", "extra == 'x'", "os_name", 4]),
        "resolution-markers": st.lists(st.sampled_from(["sys_platform == 'win32'", "(("]), max_size=2),
        "groups": st.just(["main"]),
    },
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'


@pytest.mark.parametrize("kind", FORMATS)
@given(packages=st.lists(PACKAGE, max_size=3))
def test_a_lock_file_is_read_or_refused(kind: str, packages: list[dict[str, object]]) -> None:
    key = "packages" if kind == "pylock" else "package"
    try:
        found = FORMATS[kind](f"{key} = {toml(list(packages))}", "some.lock")
    except NotReadable as refused:
        assert "\n" not in refused.message
        return
    for item in found:
        assert "/" not in item.project and not item.project.startswith((".", "-"))
        for target in TARGETS:
            item.applies(target.environment)
            target.chosen(item.files)
        for file in item.files:
            assert "/" not in file.name and file.name not in (".", "..")


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_requirements_or_refused(text: str) -> None:
    try:
        parse(text, Path("requirements.txt"))
    except NotReadable as refused:
        assert refused.hint


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("lock") / "uv.lock"
    path.write_bytes(content)
    with contextlib.suppress(NotReadable):
        assert read(path) == ()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"filename": ODD}, optional={"url": ODD, "hashes": ODD | st.just({"sha256": 1}), "requires-python": ODD}
        ),
        max_size=4,
    )
)
def test_any_page_is_read_or_refused(files: list[dict[str, object]]) -> None:
    try:
        page = ProjectPage.read("a", {"files": files}, path="/root/dev/+simple/a/")
    except ValueError:
        return
    for target in TARGETS:
        page.newest(2, target)
        for wanted in (Wanted(project="a", version="1"), Wanted(project="a", version="x")):
            page.chosen(wanted, target)
        page.chosen(Wanted(project="a", version="1", files=(LockedFile(name="a-1.tar.gz", sha256="0" * 64),)), target)
