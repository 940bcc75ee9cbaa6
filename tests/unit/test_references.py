"""References to secrets: what each form gives, and what is told when it gives nothing."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from deployer.clients.installers import _origin
from deployer.deployment.secret_refs import authorization, authorizations, resolve
from deployer.errors import ProfileError
from deployer.profile.models import Credentials, Index

VALUE = "the-secret-itself"


def found(reference: str, home: Path = Path("/nonexistent"), **env: str) -> str:
    return resolve(reference, where="here", env={"PATH": "/usr/bin:/bin", **env}, home=home).reveal()


def header(home: Path = Path("/nonexistent"), **given: str) -> str:
    credentials = Credentials.model_validate(given)
    return authorization(credentials, where="here", env={"TOKEN": VALUE}, home=home).reveal()


def test_every_form_gives_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{VALUE}\nand a comment\n")
    assert found("env:TOKEN", TOKEN=VALUE) == VALUE
    assert found(f"file:{tmp_path}/token") == found("file:~/token", tmp_path) == VALUE
    assert found(f"command:printf '%s\\nmore' {VALUE}") == VALUE


def test_no_shell_runs_a_command(tmp_path: Path) -> None:
    assert found("command:echo $TOKEN; `id` > x", TOKEN=VALUE) == "$TOKEN; `id` > x"


def test_the_keyring_is_asked_by_service_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("keyring")
    kept = {("packages.example.com/simple", "deploy"): VALUE}
    vars(fake).update(
        get_password=lambda service, user: kept.get((service, user)), errors=SimpleNamespace(KeyringError=RuntimeError)
    )
    monkeypatch.setitem(sys.modules, "keyring", fake)
    assert found("keyring:packages.example.com/simple/deploy") == VALUE
    with pytest.raises(ProfileError, match="the keyring has no other/deploy"):
        found("keyring:other/deploy")


def test_a_keyring_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ProfileError, match="keyring is not installed") as caught:
        found("keyring:service/user")
    assert caught.value.hint == f"{sys.executable} -m pip install 'devpi-deployer[keyring]'"


@pytest.mark.parametrize(
    "reference",
    ["env:NOT_SET", "env:EMPTY", "file:/nonexistent/x", "file:/", "command:false", "command:/nonexistent", "command:'"],
)
def test_what_gives_nothing_is_one_line_of_cause_and_one_of_cure(reference: str) -> None:
    with pytest.raises(ProfileError) as caught:
        found(reference, EMPTY="  ")
    assert caught.value.message.startswith("here: ") and "\n" not in caught.value.message
    assert caught.value.hint


def test_a_program_that_fails_is_not_quoted() -> None:
    with pytest.raises(ProfileError) as caught:
        found(f"command:sh -c 'echo {VALUE}; echo {VALUE} >&2; exit 3'")
    assert VALUE not in caught.value.message
    assert "sh ended with exit code 3" in caught.value.message


def test_the_three_forms_of_a_header() -> None:
    assert header(token="env:TOKEN") == f"Bearer {VALUE}"
    assert (
        header(username="deploy", password="env:TOKEN")
        == "Basic " + base64.b64encode(f"deploy:{VALUE}".encode()).decode()
    )
    assert header(token="env:TOKEN", token_as="user") == "Basic " + base64.b64encode(f"{VALUE}:".encode()).decode()


def test_a_token_that_would_break_a_header_is_refused() -> None:
    with pytest.raises(ProfileError, match="not a valid token"):
        header(token="command:printf 'caf\\303\\251'")


def test_only_mirrors_with_credentials_are_resolved() -> None:
    indexes = {
        "root/a": Index(type="mirror", url="https://a.example.com/", credentials=Credentials(token="env:TOKEN")),
        "root/b": Index(type="mirror", url="https://b.example.com/"),
    }
    made = authorizations(indexes, env={"TOKEN": VALUE}, home=Path("/"))
    assert set(made) == {"https://a.example.com/"}
    assert VALUE not in repr(made)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:3141/root/pypi/+f/ab/c/x.whl#sha256=1", "root/pypi"),
        ("http://files.example.com/x.whl", "files.example.com"),
        ("", ""),
    ],
)
def test_whose_a_file_is(url: str, origin: str) -> None:
    assert _origin(url, "http://127.0.0.1:3141/root/dev/+simple/") == origin
