"""What `index export` prints is a profile: applied to nothing, it leads to the state that it was taken from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import Cli
from tests.integration.deployments import ENGINES, deployed
from tests.plain_devpi import free_port
from tests.server_process import auth_header, login, request
from tests.upstream import Faults, Upstream, make_wheel

CANARY = "c4n4ry-0f-an-export"
CREDENTIALS = {"username": "deploy", "password": "env:PRIVATE_TOKEN"}
TITLES = ("no", "22:30", "1.10", "~", "0x1F", "a: [b], #c", "«ü»", "-")
"""What YAML could read as something else."""


def topology(url: str) -> dict[str, Any]:
    return {
        "users": {
            "root": {"email": "root@example.com"},
            "dev": {"email": "dev@example.com", "title": "yes"},
            "ci": {"description": "{{ a }} & <b>", "custom_data": "12"},
            "team": {},
        },
        "groups": {"makers": ["dev", "ci"]},
        "indexes": {
            "root/pypi": {"type": "mirror", "url": "http://127.0.0.1:9/simple/", "cache_expiry": 60, "volatile": False},
            "root/private": {
                "type": "mirror",
                "url": url,
                "credentials": CREDENTIALS,
                "owns": ["acme-*", "Shop"],
                "only_owned": True,
                "web_url": "https://packages.example.com/{name}",
            },
            "root/other": {
                "type": "mirror",
                "url": "http://127.0.0.1:9/other/",
                "credentials": {"token": "env:PRIVATE_TOKEN", "token_as": "user"},
                "owns": ["other-*"],
            },
            "team/made": {"type": "stage", "bases": [], "acl_upload": ["@makers"], "owns": ["made"]},
            "team/inner": {"type": "ordered", "bases": ["root/private", "root/other"]},
            "team/main": {
                "type": "ordered",
                "bases": ["team/made", "team/inner", "root/private", "root/pypi"],
                "acl_upload": ["ci", ":AUTHENTICATED:"],
                "acl_toxresult_upload": ["dev"],
                "owns": ["main-*"],
                "volatile": True,
            },
            "team/mixed": {
                "type": "stage",
                "bases": ["root/other", "root/pypi"],
                "accept_confusion": True,
                "mirror_whitelist": ["shop", "acme-core"],
                "mirror_whitelist_inheritance": "union",
            },
            **{f"team/t{number}": {"type": "stage", "title": title} for number, title in enumerate(TITLES)},
            "root/dev": None,
        },
        "clients": {"index": "team/main"},
    }


@pytest.fixture(params=ENGINES)
def cli(request: pytest.FixtureRequest, tmp_path: Path, private: Upstream) -> Iterator[Cli]:
    with deployed(request, tmp_path, topology(private.simple_url), PRIVATE_TOKEN=CANARY) as running:
        yield running


@pytest.fixture
def private() -> Iterator[Upstream]:
    with Upstream([make_wheel("acme-core", "1.0")], Faults(auth=("deploy", CANARY))) as running:
        yield running


def state(cli: Cli) -> Any:
    """All that the server has of users and indexes, past our own reading of it."""
    _, answer = request(cli.port, "GET", "/")
    for user in answer["result"].values():
        user.pop("created", None), user.pop("modified", None)
    return answer["result"]


def test_an_export_applied_to_nothing_makes_what_it_was_taken_from(cli: Cli) -> None:
    before = state(cli)
    done = cli.run("index", "export")
    assert (done.code, done.err) == (0, "")
    assert CANARY not in done.out
    exported = cli.home / "exported.yaml"
    top = {"engine": cli.engine, "data": str(cli.data), "network": {"port": cli.port, "mode": "host"}}
    exported.write_text(done.out)

    def same_place(path: Path) -> str:
        """The export, and where this test has its deployments."""
        ours = cli.home / f"at-{path.stem}.yaml"
        ours.write_text(yaml.safe_dump({"extends": str(path), **top}))
        return str(ours)

    known = cli.run("plan", "--json", "--profile", same_place(exported))
    assert known.data["steps"]["indexes"] == ["unchanged"], known.out

    assert cli.run("down", "--purge", "--yes").code == 0
    cli.port = top["network"]["port"] = free_port()
    anew = same_place(exported)
    made = cli.run("up", "--no-pip", "--profile", anew)
    assert made.code == 0, made.err
    assert state(cli) == before
    again = cli.run("plan", "--json", "--profile", anew)
    assert again.data["steps"]["indexes"] == ["unchanged"], again.out
    # The credentials are there again, too: without them this upstream gives nothing.
    page = {"User-Agent": "pip/24", "Accept": "text/html"}
    assert request(cli.port, "GET", "/team/main/+simple/acme-core/", headers=page)[0] == 200
    assert cli.run("index", "export").out == done.out

    # What the server can't know is told, where this host has lost it too; and what no profile can say.
    (record,) = (cli.home / "state").rglob("applied.json")
    record.unlink()
    auth = auth_header(login(cli.port, cli.run("secret", "show").out.strip())[1]["result"]["password"])
    by_hand = ["owns-=root/private:shop", "owns+=root/private:tools-*"]
    assert request(cli.port, "PATCH", "/team/inner", body=by_hand, headers=auth)[0] == 200
    told = cli.run("index", "export", "--json")
    assert "credentials" not in told.data["indexes"]["root/private"]
    warnings = " ".join(told.envelope["warnings"])
    for name in (
        "root/private: the source of its credentials",
        "root/other: the source of its credentials",
        "team/mixed merges the mirrors",
    ):
        assert name in warnings
    assert "a profile can't express this: modify index team/main: owns" in warnings
