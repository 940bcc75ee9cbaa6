"""Values in TOML files: set and restored, with every byte of others as it was."""

from __future__ import annotations

import re
import tomllib
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployer.clients.toml.editing import merge, unmerge
from deployer.errors import ClientFileError

OURS = "http://127.0.0.1:3141/root/dev/+simple/"
SHAPES = {
    "uv": {"index[default=true].url": OURS},
    "uv-project": {"tool.uv.index[default=true].url": OURS},
    "pdm": {"pypi.url": OURS},
    "poetry": {"tool.poetry.source[name=deployer].url": OURS, "tool.poetry.source[name=deployer].priority": "primary"},
}
COMMON = (
    "# a comment\n",
    "\n",
)
USER = (
    *COMMON,
    "offline = false # why\n",
    "[pip]\nno-build = true\n\n",
    "[pypi]\n  verify_ssl = true\n",
    "[pypi]\nurl = 'https://corp.example.com/simple' # ours\n",
    "[[index]]\nname = 'corp'\nurl = \"https://corp.example.com/simple\"\n\n",
    '[[index]]\nurl = "https://corp.example.com/simple"\ndefault = true\n',
)
PROJECT = (
    *COMMON,
    "[tool.uv]\nmanaged = true\n",
    "[[tool.uv.index]]\nname = 'x'\nurl = 'https://x.example.com/'\nexplicit = true\n",
    "[tool.poetry]\nname = 'a'\n[tool.poetry.dependencies]\npython = '^3.11'\n",
    "[[tool.poetry.source]]\nname = 'corp'\nurl = 'https://corp.example.com/simple'\npriority = 'supplemental'\n",
    "[tool.ruff]\nline-length = 100\n[tool.ruff.lint]\nselect = [\n  'E', # errors\n]\n",
    "[project]\nname = 'demo'\ndescription = '''\nindex = 1\n'''\n",
)
LATER = ("[later]\nkey = 1\n", "\n# the end\n", "[[later]]\nkey = [1, 2]\n")


examples = settings(max_examples=60)


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    heads = re.findall(r"^\[+((?:tool\.)?\w+)", text, re.MULTILINE)
    groups = [head for head, _ in groupby(heads)]
    return len(groups) == len(set(groups))  # the parts of a table stand together


texts = (
    st.sampled_from([USER, PROJECT])
    .flatmap(lambda blocks: st.lists(st.sampled_from(blocks), unique=True, max_size=6))
    .map("".join)
    .filter(is_toml)
    .flatmap(lambda text: st.sampled_from([text, text.replace("\n", "\r\n"), text.rstrip("\n")]))
)
shapes = st.sampled_from(list(SHAPES.values()))


def merged(text: str, values: dict[str, str]) -> str:
    try:
        return merge(text, values)
    except ClientFileError:
        return ""


@examples
@given(texts, shapes)
def test_merging_keeps_every_line_but_the_index(text: str, values: dict[str, str]) -> None:
    made = merge(text, values)
    assert merge(made, values) == made
    kept = [line for line in text.splitlines() if "url" not in line and line.strip()]
    lines = made.splitlines()
    for line in kept:
        assert line in lines
        lines = lines[lines.index(line) + 1 :]


@examples
@given(texts, shapes)
def test_unmerging_is_the_inverse(text: str, values: dict[str, str]) -> None:
    other = {key: value.replace("3141", "4000") for key, value in values.items()}
    assert unmerge(merge(merge(text, other), values), original=text, written=[other, values]) == (text, ())


@examples
@given(texts, shapes, st.lists(st.sampled_from(LATER), unique=True, min_size=1))
def test_what_others_add_at_the_end_is_kept_byte_for_byte(text: str, values: dict[str, str], later: list[str]) -> None:
    end = "\r\n" if "\r\n" in text else "\n"
    text = text if not text or text.endswith("\n") else text + end
    added = "".join(later).replace("\n", end)
    if is_toml(text + added):
        assert unmerge(merge(text, values) + added, original=text, written=[values]) == (text + added, ())


@examples
@given(texts, shapes, st.sampled_from(["# first\n", "zeroth = 1\n", "\n"]))
def test_what_others_add_at_the_beginning_is_kept(text: str, values: dict[str, str], earlier: str) -> None:
    assert unmerge(earlier + merge(text, values), original=text, written=[values]) == (earlier + text, ())


@examples
@given(texts, shapes)
def test_what_somebody_else_set_is_kept(text: str, values: dict[str, str]) -> None:
    theirs = merge(text, values).replace(OURS, "https://theirs.example.com/simple")
    rest, kept = unmerge(theirs, original=text, written=[values])
    assert kept == (next(iter(values)),)
    assert "https://theirs.example.com/simple" in rest


def test_a_row_that_somebody_added_to_stays() -> None:
    values = SHAPES["uv"]
    text = merge("", values) + 'name = "mine"\n'
    rest, kept = unmerge(text, original="", written=[values])
    assert tomllib.loads(rest) == {"index": [{"default": True, "name": "mine"}]} and kept == ()


def test_a_table_that_follows_stays_apart() -> None:
    text = "[tool.ruff]\nline-length = 100\n\n[build-system]\nrequires = []\n"
    made = merge(text, SHAPES["uv-project"])
    assert made.split("\n\n")[1].startswith("[[tool.uv.index]]\n") and made.endswith("\n\n" + text.partition("\n\n")[2])
    assert unmerge(made, original=text, written=[SHAPES["uv-project"]]) == (text, ())


def test_inline_arrays_are_edited() -> None:
    text = "index = [{url = 'https://corp.example.com/simple', name = 'corp'}] # mine\n"
    made = merge(text, SHAPES["uv"])
    assert tomllib.loads(made)["index"][1] == {"default": True, "url": OURS} and "# mine" in made
    assert unmerge(made, original=text, written=[SHAPES["uv"]]) == (text, ())


@pytest.mark.parametrize("text", ["pypi = 1\n", "index = 'x'\n[tool]\nuv = 1\npoetry = 2\n"])
def test_what_is_no_table_is_refused(text: str) -> None:
    for values in SHAPES.values():
        if not merged(text, values):
            return
    pytest.fail("nothing was refused")


def test_rows_that_stand_apart_are_refused() -> None:
    row = "[[index]]\nurl = 'https://{}.example.com/'\n"
    with pytest.raises(ClientFileError) as error:
        merge(row.format("a") + "[pip]\nno-build = true\n" + row.format("b"), SHAPES["uv"])
    assert "stand apart" in error.value.message


def test_an_error_does_not_quote_the_file() -> None:
    with pytest.raises(ClientFileError) as error:
        merge("url = 'x'\npassword = canary-secret\n", SHAPES["pdm"])
    assert "canary" not in error.value.message and "line 2" in error.value.message
