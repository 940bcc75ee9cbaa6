"""Whatever is in a profile, a pip.conf or a distribution, it is read or told as a problem: never a traceback."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer import distribution
from deployer.clients.client import ClientSettings
from deployer.clients.pip import Pip, merging, origin, unmerging
from deployer.clients.pip.reading import read_config
from deployer.clients.text import decode
from deployer.devpi import distributions
from deployer.errors import DeployerError, UsageError
from deployer.plan import plan
from deployer.profile.load import load
from deployer.profile.load.overrides import parse_set
from deployer.profile.strictyaml import parse
from deployer.render import run_argv
from deployer.spec import EngineName
from tests.client_place import Place
from tests.fuzzed import DEEP, LEAVES, changed
from tests.unit.test_plan import FACTS
from tests.upstream import make_sdist, make_wheel

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

SHIPPED = [yaml.safe_load(path.read_text()) for path in sorted(Path("profiles").glob("*.yaml"))]
words = st.text(max_size=12) | st.sampled_from(
    ["", "\0", "\n", "..", "-", "é", "\ud800", "a" * 300, "1" * 5000, "%(x)s"]
)


@given(tree=changed(*SHIPPED))
@in_one_directory
def test_a_profile_with_a_part_changed(tmp_path: Path, tree: Any) -> None:
    """What is accepted has a plan, or a reason why not; and a plan has a command that no value can leave."""
    path = tmp_path / "team.yaml"
    try:
        path.write_text(json.dumps(tree))  # JSON is YAML
        profile = load(str(path)).profile
        made = plan(profile, FACTS, name="devpi", profile_name="team")
    except DeployerError as error:
        assert error.message
        return
    assert not any("\0" in word or "\n" in word for word in run_argv(made.spec, EngineName.DOCKER))


@given(
    content=st.binary(max_size=200)
    | DEEP
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@in_one_directory
def test_a_profile_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    document = parse(content, name="team.yaml")
    assert document.problems or isinstance(document.tree, dict)
    path = tmp_path / "team.yaml"
    path.write_bytes(content)
    with suppress(DeployerError):
        load(str(path))


@given(text=words | st.tuples(words, LEAVES.map(str)).map("=".join))
def test_a_value_that_is_set(text: str) -> None:
    with suppress(DeployerError):
        assert parse_set(text).path


# pip.conf

OURS = ClientSettings(index_url="http://devpi.example.com:3141/root/dev/+simple/", timeout=60)
LINES = [
    *("[global]", "[install]", "[DEFAULT]", "index-url = http://a/", "extra-index-url=\n  http://b/\n  http://c/"),
    *("trusted-host: a b", "timeout = x", "; c", " cont", "\tcont", "", "[", "]", "=", "--index-url=1", "key\x00=\x1c"),
]
lines = st.sampled_from(LINES)
confs = (
    st.lists(lines | words, max_size=8).map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=80)
    | DEEP
)


@given(content=confs)
@in_one_directory
def test_a_pip_conf(place: Place, content: bytes) -> None:
    values = Pip().values(OURS)
    place.write(content)
    config = read_config(place.account)
    assert all(config.warnings)
    origin.upstream(config, ours=lambda _: False)
    origin.build_settings(config, ours=lambda _: False)
    try:
        text = decode(content)
        merged = merging.merge(text, values)
    except DeployerError as error:
        assert error.hint
        return
    assert merging.merge(merged, values) == merged
    with suppress(DeployerError):
        unmerging.unmerge(merged, original=text, written=[values])
    with suppress(DeployerError):
        unmerging.unmerge(text, original=merged, written=[values])


@given(content=confs, variable=words)
@in_one_directory
def test_pip_is_configured_and_back(place: Place, content: bytes, variable: str) -> None:
    before = place.write(content).read_bytes()
    place.env["PIP_TIMEOUT"] = variable
    try:
        place.configure()
        place.undo()
    except DeployerError as error:
        assert error.hint
    assert place.conf.read_bytes() == before
    for record in place.records():
        record.unlink()


# Distributions

PARTS = st.sampled_from(["demo", "1.0", "py3", "none", "any", "1", "", "..", "é", "1!2+3", "9" * 5000, "cp39.cp310"])
names = st.tuples(
    st.lists(PARTS, max_size=7).map("-".join), st.sampled_from([".whl", ".tar.gz", ".zip", ".whl.", ""])
).map("".join)


@given(name=names | words)
def test_the_name_of_a_file(name: str) -> None:
    distribution.version_of(name)


@given(text=words | st.tuples(PARTS, st.sampled_from(["==", "===", "~=", "<", "@", ";", "["]), PARTS).map("".join))
def test_a_requirement(text: str) -> None:
    with suppress(UsageError):
        requirement = distributions.parse_requirement(text)
        distributions.exact_version(requirement)
        with suppress(DeployerError):
            distributions.newest((), requirement)


WHEEL, SDIST = make_wheel("demo", "1.0"), make_sdist("demo", "1.0")


def flipped(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` with some bytes changed, or cut off."""

    def flip(changes: list[tuple[int, int]], cut: int) -> bytes:
        copy = bytearray(data)
        for at, value in changes:
            copy[at % len(copy)] = value
        return bytes(copy[: len(copy) - cut % len(copy)])

    places = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)
    return st.builds(flip, places, st.just(0) | st.integers(0, 1 << 16))


def wheel_with(metadata: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name}.dist-info/METADATA", metadata)
    return stream.getvalue()


FIELDS = [
    *(b"Name: demo", b"Version: 1.0", b"Metadata-Version: 2.1", b"Keywords: a,b", b"Project-URL: x", b"Platform: any"),
    *(b"Description-Content-Type: \xff", b"Name: \xed\xa0\x80", b"Version: 1\n 0", b"", b"\0", b": :"),
]
fields = st.sampled_from(FIELDS)
metadata = st.lists(fields | st.binary(max_size=20), max_size=8).map(b"\n".join)


@given(
    content=flipped(WHEEL.content)
    | st.builds(wheel_with, metadata, st.sampled_from(["demo-1.0", "a", "é"]))
    | st.binary(max_size=60)
)
@in_one_directory
def test_a_wheel(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(content)
    try:
        assert distributions.read(path).project == "demo"
    except UsageError as error:
        assert error.hint and "\n" not in error.message


@given(content=flipped(SDIST.content) | st.binary(max_size=60))
@in_one_directory
def test_an_sdist(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo-1.0.tar.gz"
    path.write_bytes(content)
    try:
        assert distributions.read(path).project == "demo"
    except UsageError as error:
        assert error.hint and "\n" not in error.message


@pytest.mark.parametrize("profile", range(len(SHIPPED)))
def test_what_is_changed_here_is_a_profile_before(profile: int, tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(json.dumps(SHIPPED[profile]))
    assert load(str(path)).profile
