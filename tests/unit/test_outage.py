"""What `exec` does when the index does not answer: the cause and the cure, or the one index that may stand in."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.cli import main
from deployer.deployment.record import Applied
from deployer.profile.crosschecks import crosschecks
from deployer.profile.fallback import NoFallback, fallback
from tests.forked import forked
from tests.plain_devpi import free_port

PUBLIC = "https://public.example/simple/"
MIRROR = {"type": "mirror", "url": PUBLIC}
INDEXES: dict[str, Any] = {
    "root/pypi": MIRROR,
    "root/silent": {"type": "mirror", "url": None},
    "root/private": {**MIRROR, "credentials": {"username": "u", "password": "env:X"}},
    "root/owner": {**MIRROR, "owns": ["acme-*"]},
    "root/inline": {"type": "mirror", "url": "https://u:p@private.example/simple/"},
    "root/dev": {"type": "stage", "bases": ["root/pypi"]},
    "root/empty": {"type": "stage", "bases": ["root/pypi"], "acl_upload": []},
    "root/ordered": {"type": "ordered", "bases": ["root/pypi"]},
}


def test_only_a_public_mirror_has_a_fallback() -> None:
    assert fallback(INDEXES, "root/pypi") == PUBLIC


@pytest.mark.parametrize("index", [*(name for name in INDEXES if name != "root/pypi"), "root/unknown"])
def test_nothing_with_uploads_or_private_names_has_one(index: str) -> None:
    with pytest.raises(NoFallback) as caught:
        fallback(INDEXES, index)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("clients", "told"),
    [
        ({"index": "root/dev", "fallback": True}, "clients.fallback: root/dev is no mirror"),
        ({"fallback": True}, "clients.fallback: root/dev is no mirror"),
        ({"index": "root/private", "fallback": True}, "clients.fallback: root/private mirrors a private index"),
        ({"index": "root/silent", "fallback": True}, "clients.fallback: root/silent has no url"),
        ({"index": "root/pypi", "fallback": True}, ""),
        ({"index": "root/dev", "fallback": False}, ""),
        ({"index": "root/dev", "fallback": "maybe"}, ""),
    ],
)
def test_a_profile_that_asks_for_an_unsafe_one_is_refused(clients: dict[str, Any], told: str) -> None:
    found = [problem.message for problem in crosschecks({"indexes": INDEXES, "clients": clients}, lambda path: None)]
    assert [message.startswith(told) for message in found] == [True] * bool(told)


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run(
    home: Path, index: str, *, port: int, allowed: bool, words: tuple[str, ...] = ("sh", "-c", "echo $PIP_INDEX_URL")
) -> subprocess.CompletedProcess[str]:
    """`exec` after an `up` whose server is gone, or is at ``port``."""
    where = home / ".local/state/deployer/devpi"
    where.mkdir(parents=True, mode=0o700)
    record = Applied(
        profile_name="own",
        profile_ref="own",
        engine="process",
        simple_url=f"http://127.0.0.1:{port}/{index}/+simple/",
        profile={"indexes": INDEXES, "clients": {"fallback": allowed}},
    )
    (where / "applied.json").write_text(json.dumps({"schema": 1, **vars(record)}))
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "DOCKER_HOST": f"unix://{home}/nosock"}
    return forked(main, words=("deployer", "exec", "--", *words), env=env)


def test_a_command_is_not_run_and_the_cure_is_named(tmp_path: Path) -> None:
    port = free_port()
    done = run(tmp_path, "root/pypi", port=port, allowed=False)
    assert (done.returncode, done.stdout) == (6, "")
    (error, hint) = done.stderr.strip().splitlines()
    assert f"http://127.0.0.1:{port}/root/pypi/+simple/ does not answer: connection refused" in error
    assert "there is no deployment named 'devpi'" in error
    assert hint.split()[1:] == ["deployer", "up"]


def test_the_upstream_of_a_mirror_stands_in_where_the_profile_allows_it(tmp_path: Path) -> None:
    done = run(tmp_path, "root/pypi", port=free_port(), allowed=True)
    assert (done.returncode, done.stdout) == (0, f"{PUBLIC}\n")
    assert f"{PUBLIC} is used instead (clients.fallback)" in done.stderr


def test_no_private_name_is_looked_for_elsewhere(tmp_path: Path) -> None:
    done = run(tmp_path, "root/dev", port=free_port(), allowed=True)
    assert (done.returncode, done.stdout) == (6, "")
    assert "no fallback: root/dev is no mirror" in done.stderr


def test_an_index_that_answers_is_used(tmp_path: Path, listening: int) -> None:
    done = run(tmp_path, "root/dev", port=listening, allowed=True)
    assert (done.returncode, done.stdout) == (0, f"http://127.0.0.1:{listening}/root/dev/+simple/\n")
