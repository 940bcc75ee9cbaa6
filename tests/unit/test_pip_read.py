"""What we say that pip will do, against what pip does."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.clients import pip
from deployer.clients.pip.places import user_file
from deployer.clients.variables import risks, variables
from deployer.errors import ClientFileError
from tests.pip_host import CORP, SETTINGS, URL, Host


@pytest.fixture(scope="module")
def pips_default(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index that pip uses when it was told nothing."""
    host = Host(tmp_path_factory.mktemp("bare"))
    host.env["PIP_CONFIG_FILE"] = os.devnull
    return str(ast.literal_eval(host.ask().stdout)[1])


LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str], bool]] = {
    "nothing": ({}, {}, False),
    "each file alone": ({"user": "[global]\nindex-url = a\ntimeout = 3\n"}, {}, False),
    "user over legacy over global": (
        {
            "global": "[global]\nindex-url = a\ntimeout = 1\ncert = /g\n",
            "legacy": "[global]\nindex_url = b\ntimeout = 2\n",
            "user": "[global]\nINDEX-URL: c\n",
        },
        {},
        False,
    ),
    "venv over user": ({"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"}, {}, True),
    "venv that is not active": ({"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"}, {}, False),
    "a command's section of a weaker file": (
        {"global": "[install]\nindex-url = a\n", "user": "[global]\nindex-url = b\n[download]\nindex-url = c\n"},
        {},
        False,
    ),
    "variables": (
        {"user": "[global]\nindex-url = a\n[install]\ntimeout = 4\n"},
        {"PIP_INDEX_URL": "b", "PIP_TIMEOUT": "9"},
        False,
    ),
    "empty variable": ({"user": "[global]\nindex-url = a\n"}, {"PIP_INDEX_URL": ""}, False),
    "empty value hides a weaker one": (
        {"global": "[global]\nindex-url = a\n", "user": "[global]\nindex-url =\n"},
        {},
        False,
    ),
    "PIP_CONFIG_FILE": (
        {
            "global": "[global]\ntimeout = 1\n",
            "user": "[global]\nindex-url = a\n",
            "venv": "[global]\nindex-url = b\n",
            "chosen": "[global]\nindex-url = c\n",
        },
        {"PIP_CONFIG_FILE": "chosen"},
        True,
    ),
    "PIP_CONFIG_FILE that is not there": (
        {"user": "[global]\nindex-url = a\n"},
        {"PIP_CONFIG_FILE": "/nonexistent"},
        False,
    ),
    "PIP_CONFIG_FILE that is the user's": ({"user": "[global]\nindex-url = a\n"}, {"PIP_CONFIG_FILE": "user"}, False),
    "PIP_CONFIG_FILE=/dev/null": (
        {"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"},
        {"PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": "3"},
        True,
    ),
    "aliases, file": ({"user": "[global]\ntimeout = 3\ndefault-timeout = 4\nindex-url = a\npypi-url = b\n"}, {}, False),
    "aliases, other order": (
        {"user": "[global]\ndefault-timeout = 4\ntimeout = 3\npypi_url = b\n--index-url = a\n"},
        {},
        False,
    ),
    "an alias of a weaker file that is named later": (
        {"global": "[global]\ntimeout = 1\ndefault-timeout = 2\n", "user": "[global]\ntimeout = 3\n"},
        {},
        False,
    ),
    "aliases, variables": ({}, {"PIP_DEFAULT_TIMEOUT": "180", "PIP_PYPI_URL": "a"}, False),
    "DEFAULT section": ({"user": "[DEFAULT]\nindex-url = a\n[global]\ntimeout = 3\n[install]\nuser = no\n"}, {}, False),
    "Global is another section": ({"user": "[Global]\nindex-url = a\n"}, {}, False),
    "syntax": (
        {"user": "# c\n[global]\n; c\nindex-url = a ; b\nextra-index-url =\n  x\n  # c\n\n  y\ncert = /%(x)s/%d\n"},
        {},
        False,
    ),
    "XDG_CONFIG_HOME": ({"user": "[global]\nindex-url = a\n"}, {"XDG_CONFIG_HOME": "elsewhere"}, False),
    "XDG_CONFIG_HOME blank": ({"user": "[global]\nindex-url = a\n"}, {"XDG_CONFIG_HOME": " "}, False),
}


@pytest.mark.parametrize(("files", "variables", "active"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_as_pip_reads_it(
    host: Host, files: dict[str, str], variables: dict[str, str], active: bool, pips_default: str
) -> None:
    if active:
        host.activate()
    elif "venv" in files:
        shutil.rmtree(host.venv / "bin")
    if variables.get("XDG_CONFIG_HOME", "").strip():
        host.env["XDG_CONFIG_HOME"] = str(host.home / variables["XDG_CONFIG_HOME"])
    paths = {place: host.write(place, text) for place, text in files.items()}
    for name, value in variables.items():
        if name != "XDG_CONFIG_HOME" or not value.strip():
            host.env[name] = str(paths.get(value, value))
    done = host.ask()
    assert done.returncode == 0, done.stderr
    items, index_url, timeout, extra, cert = ast.literal_eval(done.stdout)
    config = host.read()
    assert config.items() == items
    assert config.value("index-url") == (index_url if index_url != pips_default else "")
    assert float(config.value("timeout") or 15) == timeout
    assert config.value("extra-index-url").split() == extra
    assert (config.value("cert") or None) == cert


@pytest.mark.parametrize("content", [b"[global]\n# \xe9\n", b"index-url = a\n", b"\xef\xbb\xbf[global]\n"])
def test_pip_stops_where_we_say(host: Host, content: bytes) -> None:
    host.write("user", "").write_bytes(content)
    assert host.ask().returncode != 0
    (warning,) = host.read().warnings
    assert "no pip command works" in warning and str(host.home) in warning


def test_what_pip_cant_open_it_passes_over(host: Host) -> None:
    user_file(host.account).mkdir(parents=True)
    done = host.ask()
    assert done.returncode == 0 and ast.literal_eval(done.stdout)[0] == host.read().items()


def test_the_source_is_told(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    assert host.read().effective("index-url") == (CORP, str(path))
    host.env["PIP_INDEX_URL"] = URL
    assert host.read().effective("index-url") == (URL, "PIP_INDEX_URL")
    assert host.read().effective("proxy") == ("", "")


# Masks


def test_nothing_hides_a_plain_configuration(host: Host) -> None:
    host.write("global", f"[global]\nindex-url = {CORP}\n")
    host.write("legacy", f"[global]\nindex-url = {CORP}\n")
    assert host.configure().masks == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PIP_INDEX_URL", CORP), ("PIP_PYPI_URL", CORP), ("PIP_TIMEOUT", "1"), ("PIP_DEFAULT_TIMEOUT", "180")],
)
def test_a_variable_hides_it(host: Host, variable: str, value: str) -> None:
    host.env[variable] = value
    (mask,) = host.configure().masks
    assert mask.startswith(variable) and value in mask
    assert value in (host.read().value("index-url"), host.read().value("timeout"))


def test_the_same_value_hides_nothing(host: Host) -> None:
    host.env |= {"PIP_INDEX_URL": URL, "PIP_TIMEOUT": "60"}
    assert host.configure().masks == ()


def test_no_file_is_read(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = os.devnull
    assert any(os.devnull in mask for mask in host.configure().masks)
    assert host.read().value("index-url") == ""


def test_another_file_is_read(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = str(host.write("chosen", ""))
    assert any("chosen.conf" in mask for mask in host.configure().masks)


def test_the_users_own_file_may_be_the_chosen_one(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = str(host.write("user", ""))
    assert host.configure().masks == ()


def test_the_venv_hides_it(host: Host) -> None:
    host.activate()
    path = host.write("venv", f"[global]\nindex-url = https://me:canary@{CORP[8:]}\n")
    (mask,) = host.configure().masks
    assert str(path) in mask and "canary" not in mask
    assert host.configure(scope="venv").masks == () and host.read().value("index-url") == URL


def test_a_commands_section_hides_it(host: Host) -> None:
    host.write("global", f"[install]\nindex-url = {CORP}\n")
    (mask,) = host.configure().masks
    assert "[install]" in mask


def test_an_empty_value_hides_it(host: Host) -> None:
    host.activate()
    host.write("venv", "[global]\nindex-url =\n")
    assert len(host.configure().masks) == 1 and host.read().value("index-url") == ""


@pytest.mark.parametrize("key", ["extra-index-url", "find-links", "no-index"])
def test_what_else_pip_installs_from_is_told(host: Host, key: str) -> None:
    host.write("user", f"[global]\n{key} = 1\n")
    change = host.configure()
    assert [key in warning for warning in change.warnings] == [True]
    host.env[f"PIP_{key.upper().replace('-', '_')}"] = "1"
    assert len(risks(host.account)) >= 1


def test_never_an_extra_index(host: Host) -> None:
    change = host.configure()
    assert (
        "extra" not in change.text and "trusted" not in change.text and "extra" not in str(variables(SETTINGS)).lower()
    )


# Which file


def target(host: Host, scope: str, env: Mapping[str, str] | None = None, platform: str = "linux") -> Path:
    return pip.Pip().detect(scope, replace(host.account, env=host.env if env is None else env, platform=platform))


def test_targets(host: Host) -> None:
    home = host.home
    assert target(host, "user") == home / ".config/pip/pip.conf"
    assert target(host, "user", host.env | {"XDG_CONFIG_HOME": "/x"}) == Path("/x/pip/pip.conf")
    assert target(host, "global") == Path("/etc/pip.conf")
    host.activate()
    assert target(host, "venv") == target(host, "site") == host.venv / "pip.conf"


def test_targets_of_macos(host: Host) -> None:
    env = {"XDG_CONFIG_HOME": "/x"}
    assert target(host, "user", env, "darwin") == host.home / ".config/pip/pip.conf"
    (host.home / "Library/Application Support/pip").mkdir(parents=True)
    assert target(host, "user", env, "darwin") == host.home / "Library/Application Support/pip/pip.conf"
    assert target(host, "global", env, "darwin") == Path("/Library/Application Support/pip/pip.conf")


def test_no_venv(host: Host) -> None:
    for env in (host.env, host.env | {"VIRTUAL_ENV": str(host.home)}):
        with pytest.raises(ClientFileError, match="no venv"):
            target(host, "venv", env)
    with pytest.raises(ClientFileError, match="is unknown"):
        target(host, "site", {"PATH": str(host.home)})
    with pytest.raises(ClientFileError, match="pip has no scope 'nowhere'"):
        host.configure(scope="nowhere")


def test_the_site_of_the_pip_on_path(host: Host) -> None:
    host.activate()
    (host.venv / "bin" / "pip").write_text("#!/bin/sh\n")
    (host.venv / "bin" / "pip").chmod(0o755)
    env = {name: value for name, value in host.env.items() if name != "VIRTUAL_ENV"}
    assert target(host, "site", env) == host.venv / "pip.conf"
