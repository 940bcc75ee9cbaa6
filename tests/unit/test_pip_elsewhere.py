"""What pip passes over without a word, so that nothing of ours may stumble over it; and a proxy that is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployer.clients import pip
from deployer.clients.client import Account
from deployer.clients.configure import configure
from deployer.clients.variables import past_the_proxy
from tests.pip_host import SETTINGS


def account(env: dict[str, str], root: Path) -> Account:
    return Account(env=env, home=root, state=root / "state")


def test_a_link_to_itself_is_passed_over(tmp_path: Path) -> None:
    legacy = tmp_path / ".pip" / "pip.conf"
    legacy.parent.mkdir()
    legacy.symlink_to(legacy)
    own = account({"PATH": ""}, tmp_path)
    change = configure(pip.Pip(), SETTINGS, account=own)
    assert change.masks == ()
    assert pip.read_config(own).value("index-url") == SETTINGS.index_url


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_chosen_file_in_a_closed_directory_is_not_there(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "pip.conf").write_text("[global]\nindex-url = https://packages.example.com/simple\n")
    env = {"PATH": "", "PIP_CONFIG_FILE": str(closed / "pip.conf")}
    os.seteuid(65534)
    try:
        config = pip.read_config(account(env, tmp_path))
    finally:
        os.seteuid(0)
    assert not config.ignored
    assert config.value("index-url") != "https://packages.example.com/simple"


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "example.com"}, "example.com,127.0.0.1"),
        ({"no_proxy": "example.com", "NO_PROXY": "other"}, "example.com,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),  # one star among others is a name to Python's urllib, and no host has it
    ],
)
def test_the_index_is_asked_past_a_proxy_and_others_as_before(known: dict[str, str], told: str) -> None:
    assert past_the_proxy(SETTINGS, known) == {"NO_PROXY": told, "no_proxy": told}
