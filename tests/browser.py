"""A real headless Chromium: the host's own program, driven by playwright, with the light, dark and small screens that
pages are looked at with."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engines import REQUIRED

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "has_touch": True},
}
SERIOUS = ("serious", "critical")
SHOTS = "DEPLOYER_TEST_SCREENSHOTS"
"""Variable with a directory for screenshots of every page that is looked at."""


def program() -> str:
    """The host's Chromium; the test is skipped, or fails where one is required, if there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        why = "there is no Chromium: apt-get install chromium"
        if "chromium" in REQUIRED:
            pytest.fail(why)
        pytest.skip(why)
    return found


@dataclass
class Look:
    """A page in the browser, and all that it complained about."""

    page: Any
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        self.page.goto(f"{self.base}{path}")

    def failed(self, request: Any) -> None:
        """Note a request that failed, but for one that the next page made needless."""
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url}: {request.failure}")

    def shot(self, name: str) -> None:
        """Keep a screenshot where somebody wants to look at it."""
        directory = os.environ.get(SHOTS)
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{directory}/{name}.png", full_page=True)

    @property
    def overflows(self) -> bool:
        """Whether the page as a whole has to be scrolled sideways."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return wide

    def violations(self) -> list[str]:
        """What axe-core finds serious."""
        import axe_playwright_python

        source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(source)  # past the page's own policy, which lets no such script in
        found = self.page.evaluate("axe.run()")
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]


@dataclass
class Browser:
    """A running Chromium."""

    chromium: Any

    @contextlib.contextmanager
    def look(self, base: str, *, screen: str = "light", scripts: bool = True) -> Iterator[Look]:
        """A page on a screen; at its end, nothing may have been complained about."""
        context = self.chromium.new_context(**SCREENS[screen], java_script_enabled=scripts)
        try:
            page = context.new_page()
            look = Look(page, base)
            page.on("console", lambda message: look.complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: look.complaints.append(f"error: {error}"))
            page.on("requestfailed", look.failed)
            yield look
            assert look.complaints == []
        finally:
            context.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, for as long as it is entered."""
    from playwright.sync_api import sync_playwright

    path = program()
    with sync_playwright() as playwright:
        # Root has no sandbox for it, and a container no large /dev/shm.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield Browser(running)
        finally:
            running.close()
