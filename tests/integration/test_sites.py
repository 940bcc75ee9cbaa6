"""A replica at another site: behind HTTPS and the members' secret, over a link that is slow, loses packets and breaks.

The replica's site has no way to the upstream.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.bad_link import NEAR, BadLink, why_not
from tests.indexed_server import make_indexes, upload
from tests.members import Members, fetch, page
from tests.network_lab import Namespace
from tests.server_process import COMMAND, PATIENCE, Server
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

TLS_PORT = 8443
URL = f"https://{NEAR}:{TLS_PORT}"
LONG = (pytest.mark.endurance, pytest.mark.timeout(0))
ON_DEMAND = make_wheel("ondemand", "1.0", files={"data.bin": os.urandom(50_000)})


@dataclass
class Sites:
    """What is at which site: the primary and the upstream here, a replica there."""

    here: Namespace
    there: Namespace
    link: BadLink
    members: Members

    @property
    def replica(self) -> Server:
        return self.members.others[0]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    if reason := why_not():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("sites")
    authority = Authority(root / "ca")
    authority.context(NEAR)
    with ExitStack() as stack:
        here, there = Namespace(), Namespace()
        stack.callback(here.remove)
        stack.callback(there.remove)
        link = BadLink(here, there)
        stack.callback(link.close)
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        members = Members(root, replicas=1, words=("--files-on-demand", "root/pypi", "--request-timeout", "5"))
        stack.callback(members.end)
        with here.inside():
            upstream = stack.enter_context(Upstream([make_wheel("warm", "1.0"), ON_DEMAND]))
            _store_certificate(members.primary, root / "ca")
            members.start_primary("--tls", f"{NEAR}:{TLS_PORT}", "--allow-host", NEAR)
            make_indexes(members.primary.port, members.primary.auth, upstream)
        with there.inside():
            members.launch(members.others[0], url=URL)
            members.wait(members.others[0])
        yield Sites(here, there, link, members)


def _store_certificate(server: Server, directory: Path) -> None:
    text = (directory / "cert").read_bytes() + (directory / "key").read_bytes()
    words = (*COMMAND, "store", "tls", "--serverdir", str(server.serverdir))
    server.private.mkdir(parents=True)
    subprocess.run(words, input=text, check=True, timeout=PATIENCE)


def sent(sites: Sites, wheel: Distribution) -> None:
    with sites.here.inside():
        assert upload(sites.members.primary, sites.members.primary.auth, "root/dev", wheel) == HTTPStatus.OK


def test_the_site_has_what_the_primary_has(sites: Sites) -> None:
    wheels = [make_wheel("far", f"1.{number}", files={"data.bin": os.urandom(100_000)}) for number in range(3)]
    for wheel in wheels:
        sent(sites, wheel)
    with sites.there.inside():
        found = sites.members.wait_until(sites.replica, lambda one: one.lag_seconds == 0 and one.files_in_sync)
        assert (found.synced, found.errors, found.serial) == (True, (), found.primary_serial)
        for wheel in wheels:
            assert fetch(sites.replica, "root/dev", wheel).body == wheel.content
        assert fetch(sites.replica, "root/dev", make_wheel("warm", "1.0")).status == HTTPStatus.OK
    assert sites.link.carried > 0


def test_files_of_a_mirror_come_on_demand(sites: Sites) -> None:
    with sites.here.inside():
        assert fetch(sites.members.primary, "root/pypi", ON_DEMAND).body == ON_DEMAND.content
        serial = sites.members.told(sites.members.primary).serial
    with sites.there.inside():
        found = sites.members.wait_until(sites.replica, lambda one: one.serial >= serial and one.files_in_sync)
        assert (found.files_missing, found.errors) == (0, ())
        assert not list(sites.replica.serverdir.glob(f"+files/**/{ON_DEMAND.filename}"))
        for _ in range(2):
            assert fetch(sites.replica, "root/pypi", ON_DEMAND).body == ON_DEMAND.content
    assert len(list(sites.replica.serverdir.glob(f"+files/**/{ON_DEMAND.filename}"))) == 1


@pytest.mark.parametrize("seconds", [3, *(pytest.param(seconds, marks=LONG) for seconds in (180, 1800, 3600))])
def test_a_cut_link_is_caught_up_with(sites: Sites, seconds: int) -> None:
    warm = make_wheel("warm", "1.0")
    later = make_wheel("later", f"1.{seconds}", files={"data.bin": os.urandom(100_000)})
    with sites.there.inside():
        assert fetch(sites.replica, "root/dev", warm).body == warm.content
    sites.link.cut = True
    try:
        with sites.there.inside():
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                assert fetch(sites.replica, "root/dev", warm).body == warm.content
                time.sleep(1.0)
            sites.members.wait_until(sites.replica, lambda one: (one.lag_seconds or 0) >= seconds)
            assert page(sites.replica, "root/dev", f"unknown-{seconds}").status == HTTPStatus.BAD_GATEWAY
            assert fetch(sites.replica, "root/dev", warm).body == warm.content
        sent(sites, later)
        with sites.there.inside():
            behind = sites.members.wait_until(sites.replica, lambda one: not one.primary_answers)
            assert page(sites.replica, "root/dev", "later").status == HTTPStatus.BAD_GATEWAY
    finally:
        sites.link.cut = False
    with sites.there.inside():
        found = sites.members.wait_until(
            sites.replica, lambda one: one.lag_seconds == 0 and one.files_in_sync and one.serial > behind.serial
        )
        assert (found.synced, found.errors) == (True, ())
        assert fetch(sites.replica, "root/dev", later).body == later.content
