"""Numbered members: what each reports, which data it refuses, and how a replica becomes the primary."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from tests.indexed_server import get, make_indexes
from tests.members import Members
from tests.server_process import login
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PASSWORD = "the-password-of-the-cluster"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in ("cold", "warm")]) as running:
        yield running


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Members]:
    root = tmp_path_factory.mktemp("members")
    password = root / "password"
    password.write_text(f"{PASSWORD}\n")
    made = Members(root, words=("--write-wait", "60", "--root-password-file", str(password)))
    try:
        made.start_primary()
        make_indexes(made.primary.port, made.primary.auth, upstream)
        for replica in made.others:
            made.launch(replica)
        for replica in made.others:
            made.wait(replica)
        yield made
    finally:
        made.end()


def test_members_report_what_they_have(members: Members) -> None:
    primary = members.told(members.primary)
    assert (primary.number, primary.role, primary.synced, primary.errors) == (0, "primary", True, ())
    assert login(members.primary.port, PASSWORD)[0] == HTTPStatus.OK
    for number, replica in enumerate(members.others, 1):
        found = members.wait_until(replica, lambda one: one.synced and one.files_in_sync and one.lag_seconds == 0)
        assert (found.number, found.role, found.uuid) == (number, "replica", primary.uuid)
        assert (found.serial, found.primary_serial) == (primary.serial, primary.serial)
        assert (found.files_missing, found.errors, found.version) == (0, (), primary.version)
        assert found.last_contact_seconds is not None
        for path in ("/+ready", "/+live"):
            assert get(replica.port, path, {}).status == HTTPStatus.OK
