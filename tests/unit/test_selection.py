"""What lock files name, and which of their files are wanted. The real tools made ``locks/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.errors import UsageError
from deployer.selection import LockedFile, NotReadable, Wanted, is_lock, read
from deployer.selection.targets import Target, targets

LOCKS = Path(__file__).with_name("locks")
NAMED = ["pdm.lock", "poetry.lock", "pylock.toml", "uv.lock"]
VERSIONS = [("acme-app", "1.0"), ("acme-core", "1.2"), ("back", "0.1"), ("only-src", "2"), ("win-only", "3")]
LINUX_311, WINDOWS_311, ARM_313 = (
    Target("3.11", "x86_64-unknown-linux-gnu"),
    Target("3.11", "windows"),
    Target("3.13", "aarch64-unknown-linux-gnu"),
)


@pytest.mark.parametrize("name", [*NAMED, "requirements.txt"])
def test_all_formats_name_the_same_versions(name: str) -> None:
    assert [(item.project, item.version) for item in read(LOCKS / name)] == VERSIONS


@pytest.mark.parametrize("name", NAMED)
def test_lock_files_name_files_and_hashes(name: str) -> None:
    core = next(item for item in read(LOCKS / name) if item.project == "acme-core")
    assert {file.name: file.sha256[:8] for file in core.files} == {
        "acme_core-1.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": "71346427",
        "acme_core-1.2-cp311-cp311-win_amd64.whl": "71346427",
        "acme_core-1.2-cp313-cp313-manylinux_2_28_aarch64.whl": "71346427",
        "acme_core-1.2-py3-none-any.whl": "71346427",
        "acme_core-1.2.tar.gz": "084642b2",
    }
    assert is_lock(LOCKS / name)


@pytest.mark.parametrize("name", ["pdm.lock", "poetry.lock", "pylock.toml", "requirements.txt"])
def test_markers_say_where_a_version_is_wanted(name: str) -> None:
    back = next(item for item in read(LOCKS / name) if item.project == "back")
    assert back.applies(LINUX_311.environment)
    # poetry tells that an extra wants it everywhere.
    assert back.applies(ARM_313.environment) == (name == "poetry.lock")


def test_requirements_name_hashes_and_no_files() -> None:
    core = read(LOCKS / "requirements.txt")[1]
    assert core.files == () and len(core.sha256s) == 2
    assert core.allows(LockedFile(name="acme_core-1.2-py3-none-any.whl", sha256=min(core.sha256s)))
    assert not core.allows(LockedFile(name="acme_core-1.2-py3-none-any.whl", sha256="0" * 64))


def test_a_file_is_allowed_by_name_and_hash() -> None:
    wanted = Wanted(project="a", version="1", files=(LockedFile(name="a-1.tar.gz", sha256="1" * 64),))
    assert wanted.allows(LockedFile(name="a-1.tar.gz", sha256="1" * 64))
    assert not wanted.allows(LockedFile(name="a-1.tar.gz", sha256="2" * 64))
    assert not wanted.allows(LockedFile(name="a-1.zip", sha256="1" * 64))


def test_files_of_directories_and_repositories_are_left_out(tmp_path: Path) -> None:
    lock = tmp_path / "pylock.dev.toml"
    lock.write_text(
        '[[packages]]\nname = "here"\ndirectory = {path = "."}\n'
        '[[packages]]\nname = "git"\nversion = "1"\nvcs = {type = "git"}\n'
        '[[packages]]\nname = "Some.Name"\nversion = "1"\nmarker = "\'dev\' in dependency_groups"\n'
        'wheels = [{path = "wheels/some_name-1%2Blocal-py3-none-any.whl", hashes = {md5 = "x"}}]\n'
    )
    (item,) = read(lock)
    assert (item.project, item.files) == ("some-name", (LockedFile(name="some_name-1+local-py3-none-any.whl"),))
    assert item.applies(LINUX_311.environment)


def test_a_version_with_several_entries_is_wanted_where_one_of_them_is(tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    one = '[[packages]]\nname = "a"\nversion = "1"\nmarker = "sys_platform == \'{}\'"\nsdist = {{name = "a-1.{}"}}\n'
    lock.write_text(one.format("linux", "zip") + one.format("win32", "tar.gz"))
    (item,) = read(lock)
    assert [file.name for file in item.files] == ["a-1.tar.gz", "a-1.zip"]
    assert item.applies(LINUX_311.environment) and item.applies(WINDOWS_311.environment)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("uv.lock", "[[package", "not TOML"),
        ("uv.lock", "package = 3", "invalid value: package"),
        ("pdm.lock", '[[package]]\nname = "../x"\nversion = "1"', "invalid value: name '../x'"),
        ("pdm.lock", '[[package]]\nname = "x"\nversion = "1"\nfiles = [{file = ".."}]', "invalid value: file '..'"),
        ("poetry.lock", '[[package]]\nname = "x"\nversion = "1"\nfiles = [3]', "invalid value: file 3"),
        ("requirements.txt", "a==1\n\nb>=2", "requirements.txt:3: b has no version"),
        ("requirements.txt", "a==1.*", "a has no version"),
        ("requirements.txt", "a @ https://example.com/a.zip", "a has no version"),
        ("requirements.txt", "-r other.txt", "requirements.txt:1: -r is not read here"),
        ("requirements.txt", "what is this", "not a requirement"),
    ],
)
def test_what_is_no_selection_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NotReadable, match=told.replace("(", r"\(")) as refused:
        read(tmp_path / name)
    assert refused.value.hint


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="No such file"):
        read(tmp_path / "uv.lock")
    (tmp_path / "uv.lock").write_bytes(b"\xff")
    with pytest.raises(NotReadable, match="not UTF-8"):
        read(tmp_path / "uv.lock")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (LINUX_311, "acme_core-1.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
        (WINDOWS_311, "acme_core-1.2-cp311-cp311-win_amd64.whl"),
        (ARM_313, "acme_core-1.2-cp313-cp313-manylinux_2_28_aarch64.whl"),
        (Target("3.13", "aarch64-manylinux2014"), "acme_core-1.2-py3-none-any.whl"),
        (Target("3.12", "macos"), "acme_core-1.2-py3-none-any.whl"),
    ],
)
def test_the_file_that_an_installer_takes(target: Target, name: str) -> None:
    core = read(LOCKS / "uv.lock")[1]
    chosen = target.chosen(core.files)
    assert chosen is not None and chosen.name == name


def test_a_source_distribution_is_taken_where_no_wheel_fits() -> None:
    files = [
        LockedFile(name=name) for name in ("a-1-cp39-cp39-win32.whl", "a-1.zip", "a-1.tar.gz", "a-1.exe", "a-1-.whl")
    ]
    assert LINUX_311.chosen(files) == LockedFile(name="a-1.tar.gz")
    assert LINUX_311.chosen(files[:1]) is None


def test_targets_are_each_python_on_each_platform() -> None:
    assert targets(["3.11,3.13"], ["linux", "macos"], own="3.12") == tuple(
        Target(python, platform) for python in ("3.11", "3.13") for platform in ("linux", "macos")
    )
    assert targets([], [], own="3.12") == (Target("3.12"),)
    assert Target("3.12").environment["python_full_version"] == "3.12.0"


@pytest.mark.parametrize(
    ("python", "platform"), [("2.7", ""), ("3.11; x", ""), ("3.11", "amiga"), ("3.11", "z80-manylinux_2_17")]
)
def test_unknown_targets_are_refused(python: str, platform: str) -> None:
    with pytest.raises(UsageError):
        Target(python, platform)
