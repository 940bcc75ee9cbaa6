"""Pages in a real browser: a first visit, a package found, light, dark and phone; by keyboard, and without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.browser import SCREENS, Browser, Look, chromium, program
from tests.indexed_server import JSON, get, make_indexes, upload
from tests.server_process import Server
from tests.upstream import Upstream, make_sdist, make_wheel
from tests.web_pages import described

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

README = """# Streams

A library for *streams*, with a [manual](https://example.com/manual).

![build](https://example.com/badge.svg)

```python
from demo import stream
```

| option | meaning |
|---|---|
| `size` | of a block |
"""
PAGES = (
    "/",
    "/root/dev",
    "/root/dev/demo",
    "/root/dev/demo/1.0",
    "/+web/search?q=pack",
    "/+web/activity",
    "/root/dev/nothing",
)
EXAMINED = {"light": PAGES, "dark": ("/", "/root/dev/demo"), "phone": ("/",)}
"""The pages that axe looks at: colours differ on the dark screen, and the order of things on the small one."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program()
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    demo = [described("demo", version, README, requires=("package-1>=1",)) for version in ("1.0", "2.0", "3.0rc1")]
    packages = [make_wheel(f"package-{number}", "1.0") for number in range(12)]
    upstream = Upstream([*demo, make_sdist("demo", "2.0"), *packages], core_metadata=True)
    server = Server(tmp_path_factory.mktemp("browser") / "server")
    with upstream:
        server.start()
        try:
            auth = server.auth
            make_indexes(server.port, auth, upstream)
            assert upload(server, auth, "root/dev", described("acme-tool", "1.0", "# Acme\n\nOurs.")) == 200
            for package in packages:
                assert get(server.port, f"/root/dev/+simple/{package.project}/", JSON).status == 200
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.end()


def test_a_first_visit_ends_with_a_command_that_is_copied(browser: Browser, base: str) -> None:
    with browser.look(base) as look:
        look.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        look.open("/")
        assert look.page.locator("h1").inner_text() == "A Python package index"
        look.page.get_by_role("button", name="Copy").first.click()
        look.page.get_by_role("button", name="Copied").wait_for()
        copied = look.page.evaluate("navigator.clipboard.readText()")
        assert copied == f"pip config set global.index-url {base}/root/dev/+simple/"


def test_a_package_is_found_while_typing_and_opened(browser: Browser, base: str) -> None:
    with browser.look(base) as look:
        look.open("/")
        look.page.get_by_role("link", name="Packages", exact=True).click()
        look.page.get_by_label("Part of a name").fill("acme")
        look.page.get_by_text("1 package here").wait_for()
        assert look.page.locator("#results li").count() == 1
        look.page.get_by_role("link", name="acme-tool").click()
        assert "acme-tool" in look.page.title()
        assert look.page.get_by_role("heading", name="Acme", exact=True).is_visible()
        # A name that nobody has asked for is looked up at the upstream.
        look.page.get_by_label("Find a package").fill("demo")
        look.page.keyboard.press("Enter")
        look.page.get_by_role("link", name="Look up demo").click()
        assert look.page.locator("h1").inner_text() == "demo 2.0"


def test_the_keyboard_is_enough(browser: Browser, base: str) -> None:
    with browser.look(base) as look:
        look.open("/root/dev/demo")
        look.page.keyboard.press("Tab")
        assert look.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        look.page.keyboard.press("Enter")
        assert look.page.evaluate("document.activeElement.id") == "main"
        seen = set()
        for _ in range(60):
            look.page.keyboard.press("Tab")
            seen.add(str(look.page.evaluate("document.activeElement.innerText")).strip())
        assert {"Copy", "2.0", "root/dev", "package-1", "manual"} <= seen


def test_everything_is_there_without_scripts(browser: Browser, base: str) -> None:
    with browser.look(base, scripts=False) as look:
        look.open("/")
        assert look.page.get_by_role("button", name="Copy").count() == 0
        look.page.get_by_label("Find a package").fill("acme")
        look.page.get_by_role("button", name="Search").click()
        look.page.get_by_role("link", name="acme-tool").click()
        assert look.page.get_by_role("heading", name="Acme", exact=True).is_visible()
        assert re.search(r"pip install --index-url \S+ acme-tool", look.page.locator("main").inner_text())


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_fits_its_screen_and_axe_finds_nothing_serious(browser: Browser, base: str, screen: str) -> None:
    with browser.look(base, screen=screen) as look:
        for path in PAGES:
            look.open(path)
            look.shot(f"{screen}-{re.sub(r'[^a-z0-9]+', '-', path).strip('-') or 'home'}")
            assert not look.overflows, path
            if path in EXAMINED[screen]:
                assert look.violations() == [], path
            _forget_a_missing_page(look, path)


def _forget_a_missing_page(look: Look, path: str) -> None:
    """Chromium itself complains about every page with the status 404."""
    if path.endswith("nothing"):
        assert [one for one in look.complaints if "404" not in one] == []
        look.complaints.clear()
