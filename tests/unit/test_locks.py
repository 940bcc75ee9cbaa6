"""Lock files that hold our addresses: found in every form, replaced as a whole, and never half."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployer.clients.locks.addresses import find, is_server
from deployer.clients.locks.repair import Unknown, repair
from deployer.errors import UsageError
from deployer.operations.locks import KINDS, found, read, server_of

BASE = "http://127.0.0.1:3141"
DEV = f"{BASE}/root/dev/+simple/"
DIGEST = "5652e744892d78f5"
FILE = f"{BASE}/root/pypi/+f/{DIGEST[:3]}/{DIGEST[3:]}/demo-1.0-py3-none-any.whl"
PRIVATE = f"{BASE}/root/dev/+f/e49/6f24662564caa/secret-1.0-py3-none-any.whl"
UPSTREAM = "https://packages.example.com/simple/"
ORIGINAL = "https://files.example.com/ab/cd/demo-1.0-py3-none-any.whl"


class Fake:
    """A server with one mirror, ``root/pypi``, and the stage ``root/dev``."""

    base = BASE
    default_upstream = UPSTREAM

    def original(self, mirror: str, filename: str, digest: str) -> str:
        self.upstream(mirror)
        if filename != "demo-1.0-py3-none-any.whl" or digest not in ("", DIGEST):
            raise Unknown("the upstream has no such file")
        return ORIGINAL

    def owner(self, index: str, project: str, filename: str = "") -> str:
        return "root/pypi" if project == "demo" else "root/dev"

    def mirror_of(self, index: str) -> str:
        return "root/pypi"

    def upstream(self, mirror: str) -> str:
        if mirror != "root/pypi":
            raise Unknown("private", private=True)
        return UPSTREAM


class Corporate(Fake):
    default_upstream = "https://default.example.com/simple/"


def package(registry: str, url: str, name: str = "demo") -> str:
    return f"""
[[package]]
name = "{name}"
version = "1.0"
source = {{ registry = "{registry}" }}
wheels = [
    {{ url = "{url}", hash = "sha256:x", size = 905 }},
]
"""


UV = "version = 1\n" + package(DEV, FILE)
POETRY = """
[[package]]
name = "demo"
version = "1.0"
files = [
    {{file = "demo-1.0-py3-none-any.whl", hash = "sha256:x"}},
]
{}
[metadata]
lock-version = "2.1"
"""


def poetry(url: str) -> str:
    return POETRY.format(f'\n[package.source]\ntype = "legacy"\nurl = "{url}"\nreference = "deployer"\n')


PYLOCK = '[[packages]]\nname = "demo"\nurl = "{}"\n'
PDM = '[[package]]\nname = "demo"\nfiles = [{{url = "{}"}}]\n'
DIRECT = "demo @ {}#sha256=x ; python_version > '3'\n"
PIPENV = '{{"_meta": {{"sources": [{{"url": "{}"}}]}}}}'


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("uv.lock", UV, "version = 1\n" + package("https://packages.example.com/simple", ORIGINAL)),
        ("pylock.toml", PYLOCK.format(FILE), PYLOCK.format(ORIGINAL)),
        ("pdm.lock", PDM.format(FILE), PDM.format(ORIGINAL)),
        ("requirements.txt", f"# made\n--index-url {DEV}\n--trusted-host corp\n\ndemo==1.0\n", "# made\ndemo==1.0\n"),
        ("requirements.txt", DIRECT.format(FILE), DIRECT.format(ORIGINAL)),
        ("poetry.lock", poetry(DEV.rstrip("/")), POETRY.format("")),
        ("Pipfile.lock", PIPENV.format(DEV), PIPENV.format(UPSTREAM)),
    ],
    ids=["uv", "pylock", "pdm", "requirements", "direct reference", "poetry", "pipenv"],
)
def test_every_form_becomes_what_it_is_without_us(kind: str, ours: str, theirs: str) -> None:
    for text in (ours, ours.replace("+f/", "%2Bf/"), ours.replace("127.0.0.1", "localhost")):
        result = repair(text, kind=kind, index=Fake())
        assert (result.text, result.left) == (theirs, ())
    assert find(theirs) == ()


def test_an_upstream_that_is_not_the_default_is_named() -> None:
    text = repair(f"--index-url {DEV}\n\ndemo==1.0\n", kind="requirements.txt", index=Corporate()).text
    assert text == f"--index-url {UPSTREAM}\n\ndemo==1.0\n"
    ours = poetry(DEV.rstrip("/"))  # poetry knows an index by a name, which only the project can give
    assert repair(ours, kind="poetry.lock", index=Corporate()).text == ours


def test_private_packages_stay_and_the_others_do_not() -> None:
    mixed = UV + package(DEV, PRIVATE, "secret")
    result = repair(mixed, kind="uv.lock", index=Fake())
    assert result.text == repair(UV, kind="uv.lock", index=Fake()).text + package(DEV, PRIVATE, "secret")
    assert {(left.name, left.private) for left in result.left} == {("secret", True)} and len(result.left) == 2
    assert result.replaced == 2


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("requirements.txt", f"--index-url {DEV}\n\ndemo==1.0\nsecret[extra]==1.0 ; python_version > '3'\n"),
        ("Pipfile.lock", PIPENV.format(DEV)[:-1] + ', "default": {\n        "secret": {"version": "==1.0"}}}'),
        ("poetry.lock", poetry(DEV.rstrip("/")).replace('"demo"', '"secret"')),
        ("poetry.lock", re.sub("files = .*?\n]\n", "", poetry(DEV).replace('"demo"', '"secret"'), flags=re.DOTALL)),
    ],
    ids=["requirements", "pipenv", "poetry", "an older poetry"],
)
def test_no_private_name_is_sent_to_an_upstream(kind: str, text: str) -> None:
    result = repair(text, kind=kind, index=Fake())
    assert result.text == text and all(left.private for left in result.left) and result.left


def test_the_index_beside_a_dependency_is_that_of_the_dependency() -> None:
    both = f'''dependencies = [
    {{ name = "secret", version = "1.0", source = {{ registry = "{DEV}" }} }},
    {{ name = "demo", version = "1.0", source = {{ registry = "{DEV}" }} }},
]
'''
    text = UV + both + package(DEV, PRIVATE, "secret")
    result = repair(text, kind="uv.lock", index=Fake())
    lines = result.text.splitlines()
    assert {left.name for left in result.left} == {"secret"} and len(result.left) == 3
    assert [DEV in line for line in lines if "name =" in line and "source" in line] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        package(DEV, FILE.replace(DIGEST[:3], "000")),
        package(DEV, FILE.replace("demo-1.0", "demo-2.0")),
        package(DEV, FILE.replace("3141", "4000")),
        package(DEV.replace("127.0.0.1", "corp.example.com"), FILE),
    ],
    ids=["another file", "no such file", "another server", "two servers"],
)
def test_what_is_not_known_for_sure_is_left_as_a_whole(text: str) -> None:
    result = repair(text, kind="uv.lock", index=Fake())
    assert result.text == text and result.replaced == 0
    assert len(result.left) == 2 and not any(left.private for left in result.left)


@given(st.text(max_size=300))
def test_what_is_no_address_of_an_index_stays(text: str) -> None:
    if "/+" not in text and "/%2" not in text:
        assert find(text) == () and repair(text, kind="uv.lock", index=Fake()).text == text


@pytest.mark.parametrize(
    "text",
    [
        "https://files.example.com/packages/ab/cd/demo-1.0-py3-none-any.whl",
        "https://packages.example.com/simple/",
        "git+https://example.com/a/b/+fork/c",
        "https://example.com/a/b/+simpleton",
    ],
)
def test_addresses_of_others_are_not_ours(text: str) -> None:
    assert find(f'url = "{text}"\n') == ()


def test_an_address_is_read_with_all_its_parts() -> None:
    (one,) = find(f'x\n"https://me:canary-secret@corp.example.com/pre/fix/{FILE.partition("3141/")[2]}"')
    assert (one.line, one.index, one.filename, one.digest) == (2, "root/pypi", "demo-1.0-py3-none-any.whl", DIGEST)
    assert one.server == "https://me:canary-secret@corp.example.com/pre/fix" and "canary" not in one.shown
    assert is_server(one, "https://corp.example.com/pre/fix") and not is_server(one, "https://corp.example.com")


def test_packages_of_allowed_indexes_may_be_locked(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV + package(DEV, PRIVATE, "secret"))
    (lock,) = read((), tmp_path)
    assert len(found(lock)) == 4
    assert {address.index for address in found(lock, ["root/dev"])} == {"root/dev", "root/pypi"}
    assert len(found(lock, ["root/dev"])) == 2 and found(lock, ["root/dev", "root/pypi"]) == ()


def test_a_file_that_cant_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_bytes(b"\xff")
    for paths in (["nowhere.lock"], []):
        with pytest.raises(UsageError) as error:
            read(paths, tmp_path)
        assert error.value.hint
    with pytest.raises(UsageError):
        read((), tmp_path / "..")


def test_the_server_of_an_index() -> None:
    assert server_of(DEV) == server_of(BASE) == BASE
    assert server_of("https://corp.example.com/pre/root/dev/+simple") == "https://corp.example.com/pre"


def test_the_hook_looks_at_every_kind_of_lock_file() -> None:
    (hook,) = yaml.safe_load(Path(".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    pattern = re.compile(hook["files"])
    for kind in KINDS:
        name = kind.replace("*", "x")
        assert pattern.search(name) and pattern.search(f"sub/{name}")
    assert pattern.search("requirements.txt") and pattern.search("pylock.toml")
    assert not pattern.search("other.lock")
