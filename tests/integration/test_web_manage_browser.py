"""What a logged-in user does, in a real browser: upload, token, order of bases, prune."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.browser import SCREENS, Browser, Look, chromium, program
from tests.indexed_server import FILE, JSON, get, make_indexes
from tests.server_process import Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

DEMO = make_wheel("demo", "1.0", files={"data": bytes(200_000)})
OWN = (make_wheel("acme-own", "1.0"), make_wheel("acme-own", "1.1"))


@dataclass(frozen=True)
class Place:
    browser: Browser
    server: Server

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def log_in(self, look: Look) -> None:
        look.open("/")
        look.page.get_by_role("link", name="Log in").click()
        look.page.get_by_label("User").fill("root")
        look.page.get_by_label("Password").fill(self.server.password)
        look.page.get_by_role("button", name="Log in").click()
        look.page.get_by_role("button", name="Log out root").wait_for()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    program()
    server = Server(tmp_path_factory.mktemp("browser") / "server")
    with chromium() as browser, Upstream([DEMO]) as upstream:
        server.start()
        try:
            auth = server.auth
            make_indexes(server.port, auth, upstream)
            for name in ("one", "two"):
                assert request(server.port, "PUT", f"/root/{name}", body={"type": "stage"}, headers=auth)[0] == 200
            bases = {"bases": ["root/pypi", "root/one", "root/two"]}
            assert request(server.port, "PATCH", "/root/dev", body=bases, headers=auth)[0] == 200
            yield Place(browser, server)
        finally:
            server.end()


def bases(server: Server) -> list[str]:
    found: list[str] = request(server.port, "GET", "/root/dev")[1]["result"]["bases"]
    return found


def test_files_are_uploaded_and_a_wrong_one_is_named(place: Place, tmp_path: Path) -> None:
    for wheel in OWN:
        (tmp_path / wheel.filename).write_bytes(wheel.content)
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"no zip")
    with place.browser.look(place.base) as look:
        place.log_in(look)
        look.open("/root/dev")
        files = [str(tmp_path / wheel.filename) for wheel in OWN]
        look.page.get_by_label("Wheels and source distributions").set_input_files(files)
        look.page.get_by_role("button", name="Upload").click()
        look.page.get_by_text(f"Uploaded {OWN[0].filename}, {OWN[1].filename}.").wait_for()
        look.page.get_by_label("Wheels and source distributions").set_input_files(
            str(tmp_path / "broken-1.0-py3-none-any.whl")
        )
        look.page.get_by_role("button", name="Upload").click()
        look.page.get_by_text("broken-1.0-py3-none-any.whl is neither a wheel nor a source distribution.").wait_for()
        look.complaints[:] = [one for one in look.complaints if "status of 400" not in one]
        look.open("/root/dev/acme-own")
        look.page.get_by_text("Remove it").click()
        look.page.get_by_label("Type 1.1 to remove").fill("1.1")
        look.page.get_by_role("button", name="Remove").click()
        look.page.get_by_text("acme-own 1.1 was removed from root/dev.").wait_for()


def test_bases_are_dragged_and_moved_by_buttons(place: Place) -> None:
    with place.browser.look(place.base) as look:
        place.log_in(look)
        look.open("/root/dev")
        look.page.get_by_text("Change it").click()
        look.page.get_by_role("button", name="Move up root/one").click()
        look.page.get_by_role("button", name="Save").click()
        look.page.get_by_text("root/dev was changed.").wait_for()
        assert bases(place.server) == ["root/one", "root/pypi", "root/two"]
        look.page.get_by_text("Change it").click()
        rows = look.page.locator("ol[data-sortable] li")
        rows.nth(2).drag_to(rows.nth(0), source_position={"x": 5, "y": 5}, target_position={"x": 5, "y": 5})
        look.page.get_by_role("button", name="Save").click()
        look.page.get_by_text("root/dev was changed.").wait_for()
        assert bases(place.server) == ["root/two", "root/one", "root/pypi"]


def test_a_token_is_created_shown_once_and_revoked(place: Place) -> None:
    with place.browser.look(place.base) as look:
        place.log_in(look)
        look.open("/+web/manage/root")
        look.page.get_by_text("Create a token").click()
        look.page.get_by_label("Index").select_option("root/dev")
        look.page.get_by_role("button", name="Create the token").click()
        token = look.page.get_by_label("Token", exact=True).inner_text()
        assert token.startswith("devpi-")
        look.open("/+web/manage/root")
        assert token not in look.page.content()
        look.page.get_by_role("button", name="Revoke the token").click()
        look.page.get_by_text("The token was revoked.").wait_for()


def test_the_cache_is_pruned(place: Place) -> None:
    page = f"/root/pypi/+simple/{DEMO.project}/"
    listed = get(place.server.port, page, JSON)
    assert listed.status == 200
    where = urljoin(page, json.loads(listed.body)["files"][0]["url"])
    assert get(place.server.port, where.partition("#")[0], FILE).status == 200
    with place.browser.look(place.base) as look:
        place.log_in(look)
        look.open("/+web/manage")
        look.page.get_by_label("Remove what nobody used for").fill("0")
        look.page.get_by_role("button", name="Show what would go").click()
        look.page.get_by_role("rowheader", name="root/pypi/demo").wait_for()
        assert list(place.server.serverdir.rglob(DEMO.filename))
        look.page.get_by_role("button", name="Remove them").click()
        look.page.get_by_text(re.compile(r"Removed \d+ files")).wait_for()  # "removed" stands on the page before, too
    assert not list(place.server.serverdir.rglob(DEMO.filename))


@pytest.mark.parametrize("screen", SCREENS)
def test_the_pages_are_for_everybody(place: Place, screen: str) -> None:
    with place.browser.look(place.base, screen=screen) as look:
        look.open("/+web/login")
        assert (look.violations(), look.overflows) == ([], False)
        look.shot(f"login-{screen}")
        place.log_in(look)
        for path in ("/+web/manage", "/+web/manage/root", "/root/dev"):
            look.open(path)
            for summary in look.page.locator("summary").all():
                summary.click()
            assert (path, look.violations(), look.overflows) == (path, [], False)
            look.shot(f"manage{path.replace('/', '-')}-{screen}")
