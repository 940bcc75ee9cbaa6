"""What the log of changes says of a request: the action, its target, and names, never values."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("devpi_server")

from deployer.protocol import ACCEPT_ROUTE, OFFLINE_ROUTE
from deployer.server.middleware.changes import describe

INDEX = {"user": "dev", "index": "work"}
RELEASE = {"name": "demo", "version": "1.0"}


@pytest.mark.parametrize(
    ("method", "route", "match", "sent", "form", "told"),
    [
        (
            "POST",
            "/{user}/{index}/",
            INDEX,
            {**RELEASE, "content": "x.whl"},
            True,
            ("upload", "dev/work/demo/1.0", ["x.whl"]),
        ),
        ("PUSH", "/{user}/{index}", INDEX, {**RELEASE, "targetindex": "dev/new"}, False, None),
        (
            "DELETE",
            "/{user}/{index}/{project}/{version}",
            {**INDEX, "project": "demo", "version": "1"},
            {},
            False,
            None,
        ),
        ("PUT", "/{user}", {"user": "dev"}, {"password": "s3cret"}, False, ("create user", "dev", [])),
        ("PATCH", "/{user}/{index}", INDEX, {"bases": ["x"]}, False, ("modify index", "dev/work", ["bases"])),
        ("POST", "user-token-create", {"user": "dev"}, {"expires": "9"}, False, ("create token", "dev", [])),
        ("POST", "/+login", {}, {"user": "dev", "password": "s3cret"}, False, ("log in", "", [])),
        ("POST", OFFLINE_ROUTE, {}, {"offline": True, "proof": "ab"}, False, ("switch offline", "", ["on"])),
        (
            "POST",
            ACCEPT_ROUTE,
            {},
            {"index": "dev/work", "projects": ["demo"], "proof": "ab"},
            False,
            ("accept bases", "dev/work", ["demo"]),
        ),
        (
            "POST",
            ACCEPT_ROUTE,
            {},
            {"index": "dev/work", "projects": None},
            False,
            ("accept bases", "dev/work", ["all"]),
        ),
        ("GET", "/{user}/{index}", INDEX, {}, False, ("", "dev/work", [])),
    ],
)
def test_a_change_is_told_without_its_values(
    method: str, route: str, match: dict[str, str], sent: dict[str, Any], form: bool, told: Any
) -> None:
    found = describe(method, route, match, sent, form=form)
    assert found[0] or method == "GET"
    assert told is None or found == told
    assert "s3cret" not in str(found)
    assert "proof" not in str(found)
