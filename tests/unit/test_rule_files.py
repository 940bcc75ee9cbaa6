"""Lists of requirements in files: every line counts, and a file that is missing, empty or wrong is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.devpi.change import FieldChange
from deployer.errors import ProfileError, UsageError
from deployer.operations.indexes import declare
from deployer.profile.load import load
from deployer.profile.load.overrides import Override

MIRROR = "indexes:\n  root/pypi:\n    type: mirror\n"


def of(write: Callable[..., str], **lists: str) -> str:
    return write(MIRROR + "".join(f"    {key}: {value}\n" for key, value in lists.items()))


def test_a_file_stands_for_its_lines(write: Callable[..., str], tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_bytes(b"\xef\xbb\xbf# a comment\n\nEvil\r\n  urllib3 >= 1.26, < 2  # a comment\n#acme\nacme-*\n")
    ref = of(write, deny=f"[one, file:{denied}, two]", allow=f"[file:{denied}]", min_age_exempt=f"[file:{denied}]")
    index = load(ref).profile.indexes["root/pypi"]
    lines = ("Evil", "urllib3 >= 1.26, < 2", "acme-*")
    assert (index.deny, index.allow, index.min_age_exempt) == (("one", *lines, "two"), lines, lines)


def test_a_file_is_read_anew_at_each_load(write: Callable[..., str], tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    ref = of(write, deny=f"[file:{denied}]")
    for text in ("one\n", "two\nthree\n"):
        denied.write_text(text)
        assert load(ref).profile.indexes["root/pypi"].deny == tuple(text.split())


def test_a_file_of_the_home_directory_and_of_an_option(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "denied.txt").write_text("evil")
    option = Override("indexes.root/pypi.deny", ["file:~/denied.txt"], "--set indexes.root/pypi.deny")
    assert load(of(write), overrides=[option]).profile.indexes["root/pypi"].deny == ("evil",)


@pytest.mark.parametrize("content", [None, b"", b"\n# nothing\n", b"\xff\xfe", b"a\n" * (3 << 20)])
def test_a_file_that_says_nothing_is_refused(write: Callable[..., str], tmp_path: Path, content: bytes | None) -> None:
    denied = tmp_path / "denied.txt"
    if content is not None:
        denied.write_bytes(content)
    with pytest.raises(ProfileError, match=r"\.yaml:\d+: indexes\.root/pypi\.deny: .*denied\.txt") as raised:
        load(of(write, deny=f"[file:{denied}]"))
    assert raised.value.hint


@pytest.mark.parametrize("entry", ["file:denied.txt", "'file:'", "file:./denied.txt", "file:~nobody-at-all/denied.txt"])
def test_a_path_from_nowhere_is_refused(write: Callable[..., str], entry: str) -> None:
    with pytest.raises(ProfileError, match=r"indexes\.root/pypi\.deny: "):
        load(of(write, deny=f"[{entry}]"))


def test_all_wrong_lines_are_named(write: Callable[..., str], tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_text("evil\n-r other.txt\nok==1\nbad>=x.y.z\nfile:/etc/passwd\n")
    with pytest.raises(ProfileError) as raised:
        load(of(write, deny=f"[file:{denied}, a b]"))
    found = "\n".join(raised.value.details)
    assert "4 problems" in str(raised.value)
    for place in (f"{denied}:2: ", f"{denied}:4: ", f"{denied}:5: ", ".yaml:4: indexes.root/pypi.deny"):
        assert place in found
    assert "root:" not in found  # no file is read through another one


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_another_is_refused(write: Callable[..., str], tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_text("evil")
    denied.chmod(0)
    with pytest.raises(ProfileError, match="Permission denied"):
        load(of(write, deny=f"[file:{denied}]"))


def test_a_file_on_the_command_line(tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_text("evil\nurllib3>=1,<2\n")
    words = ("url=https://packages.example.com/simple/", f"deny=one,file:{denied}", "title=file:/etc/passwd")
    node = declare("root/x", words, kind="mirror")
    assert node.fields["deny"] == ("evil", "one", "urllib3>=1,<2")
    assert node.fields["title"] == "file:/etc/passwd"
    denied.write_text("a b\n")
    with pytest.raises(UsageError, match=r"denied\.txt:1: expected a requirement"):
        declare("root/x", words, kind="mirror")
    denied.unlink()
    with pytest.raises(UsageError, match=r"can't read .*denied\.txt"):
        declare("root/x", words, kind="mirror")


def test_a_long_list_is_shown_by_what_changes() -> None:
    before = tuple(f"name-{number}" for number in range(1000))
    after = (*before[1:], "evil")
    assert FieldChange(name="deny", before=before, after=after).text == "deny +[evil] -[name-0]"
    assert "and 980 more]" in FieldChange(name="deny", before=None, after=before).text
    assert FieldChange(name="deny", before=("a",), after=("b",)).text == "deny [a] -> [b]"
