"""docs/how-to/guard.md, followed by a security officer, from the profile ``guarded`` to the lists and the reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli
from tests.integration.installers import INSTALLERS
from tests.integration.test_guard import ago, publish
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/how-to/guard.md"
SECTIONS = {
    head: re.findall(r"^```(sh|yaml|text)\n(.*?)^```$", rest, flags=re.MULTILINE | re.DOTALL)
    for head, _, rest in (one.partition("\n") for one in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:])
}
OLD, FIX, NEW = (make_wheel("urllib3", version) for version in ("1.26.4", "2.6.1", "2.6.2"))
OTHER, EVIL = make_wheel("numpy", "1.0"), make_wheel("evil", "1.0")


@dataclass
class Officer:
    cli: Cli
    upstream: Upstream

    def block(self, section: str, number: int) -> str:
        return SECTIONS[section][number][1]

    def run(self, text: str) -> list[subprocess.CompletedProcess[str]]:
        """Each line as typed. The engine, the port and the upstream are those of the test."""
        env = {
            "HOME": str(self.cli.home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "DEPLOYER_ENGINE": "process",
            "DEPLOYER_PORT": str(self.cli.port),
            "DEPLOYER_DATA": str(self.cli.data),
            "DEPLOYER_UPSTREAM": self.upstream.simple_url,
            "DEPLOYER_NO_PIP": "1",
        }
        text = text.replace("/etc/deployer/", f"{self.cli.home}/")
        lines = [line for line in text.splitlines() if line]
        words = {"env": env, "cwd": self.cli.home, "capture_output": True, "text": True, "timeout": 300}
        return [subprocess.run(["bash", "-c", line], check=False, **words) for line in lines]  # type: ignore[call-overload]

    def works(self, text: str) -> str:
        answers = self.run(text)
        assert not [done for done in answers if done.returncode], answers
        return "".join(done.stdout for done in answers)

    def profile(self, text: str) -> None:
        head = "" if text.startswith("extends:") else "extends: default\n"
        text = text if "indexes:" in text else f"indexes:\n  root/pypi:\n    type: mirror\n{text}"
        text = text.replace("/etc/deployer/", f"{self.cli.home}/")
        (self.cli.home / "team.yaml").write_text(head + text)

    def gets(self, *projects: str) -> set[str]:
        """What the index lists of these projects, and sends."""
        found = set()
        for project in projects:
            page = get(self.cli.port, f"/root/dev/+simple/{project}/", JSON)
            for file in json.loads(page.body)["files"] if page.status == 200 else []:
                path = urlsplit(urljoin(f"http://x/root/dev/+simple/{project}/", file["url"])).path
                assert get(self.cli.port, path, FILE).status == 200
                found.add("-".join(file["filename"].split("-")[:2]))
        return found

    def installs(self, wanted: str) -> str:
        """The version that pip gets."""
        index = f"http://127.0.0.1:{self.cli.port}/root/dev/+simple/"
        found = INSTALLERS["pip"](index, wanted)
        return " ".join(found.versions)


@pytest.fixture(scope="module")
def officer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Officer]:
    home = tmp_path_factory.mktemp("guard-page")
    cli = Cli(home=home, engine="process", name="devpi", extra={"DEPLOYER_STATE_DIR": ""})
    with Upstream() as upstream:
        publish(upstream, "urllib3", (OLD, ago(days=900)), (FIX, ago(days=30)), (NEW, ago(hours=1)))
        publish(upstream, "numpy", (OTHER, ago(days=900)))
        publish(upstream, "evil", (EVIL, ago(days=900)))
        made = Officer(cli, upstream)
        try:
            made.works(made.block("A cooldown of seven days", 0))
            yield made
        finally:
            cli.clean()


def test_the_page_from_top_to_bottom(officer: Officer) -> None:
    home = officer.cli.home
    cooldown, lists, known = "A cooldown of seven days", "Lists", "Known malicious releases"
    apply = officer.block(lists, 2)
    assert officer.gets("urllib3", "numpy", "evil") == {"urllib3-1.26.4", "urllib3-2.6.1", "numpy-1.0", "evil-1.0"}
    assert (officer.installs("urllib3"), officer.installs("urllib3==2.6.2")) == ("urllib3-2.6.1", "")
    assert "held back until" in officer.works("deployer why urllib3==2.6.2")

    officer.works(officer.block(cooldown, 2))  # the urgent fix
    assert officer.installs("urllib3") == "urllib3-2.6.2"
    assert officer.run(apply)[0].returncode == 3  # there is no such profile yet
    officer.profile(officer.block(cooldown, 1).replace(">=2.6.1", "==2.6.1"))
    officer.works(apply)
    assert officer.gets("urllib3") == {"urllib3-1.26.4", "urllib3-2.6.1"}

    officer.profile(officer.block(lists, 0))
    officer.works(apply)
    assert officer.gets("urllib3", "evil", "numpy") == {"numpy-1.0", "urllib3-2.6.1"}
    officer.profile(officer.block(lists, 1) + "    allow: []\n")
    (home / "denied.txt").write_text("# from the incident of today\nurllib3 >= 2.6, < 2.6.2  # hijacked\n")
    officer.works(apply)
    assert officer.gets("urllib3", "evil", "numpy") == {"urllib3-1.26.4", "numpy-1.0"}
    (home / "denied.txt").write_text("numpy\n")
    officer.works(apply)
    assert officer.gets("urllib3", "numpy") == {"urllib3-1.26.4", "urllib3-2.6.1"}
    for content, cause in ((None, "No such file"), ("", "has no requirement"), ("numpy\na b\n", "denied.txt:2: ")):
        (home / "denied.txt").unlink(missing_ok=True)
        if content is not None:
            (home / "denied.txt").write_text(content)
        (done,) = officer.run(apply)
        assert done.returncode == 3 and cause in done.stderr, done
        assert officer.gets("urllib3", "numpy") == {"urllib3-1.26.4", "urllib3-2.6.1"}
    (home / "denied.txt").write_text("numpy\n")

    advisory = {"package": {"ecosystem": "PyPI", "name": "urllib3"}, "versions": ["2.6.1"]}
    with zipfile.ZipFile(home / "advisories.zip", "w") as archive:
        archive.writestr("MAL-2026-1.json", json.dumps({"id": "MAL-2026-1", "affected": [advisory]}))
    officer.works(officer.block(known, 0))
    assert officer.gets("urllib3") == {"urllib3-1.26.4"}

    why, whole, held, policy, changes, stats = officer.run(officer.block("See what is held back", 0))
    assert "by malicious of root/pypi" in why.stdout and "served by  root/pypi" in why.stdout
    assert json.loads(whole.stdout)["data"]["project"] == "urllib3"
    assert "numpy-1.0" in held.stdout and "by deny of root/pypi" in held.stdout
    assert "urllib3-2.6.1" in policy.stdout and "cached" in policy.stdout
    assert (changes.returncode, stats.returncode) == (0, 0)
    officer.works("deployer mirror malicious --clear")
    assert officer.gets("urllib3") == {"urllib3-1.26.4", "urllib3-2.6.1"}


def test_the_page_says_what_clients_get_of_a_name_that_another_base_has() -> None:
    """The commands of that section are those of ``test_takeovers.py``."""
    (_, told), (_, commands) = SECTIONS["A project that another base has taken over"]
    assert re.fullmatch(
        r"(\S+) is held back by changed of (\S+): \S+ served it first, and \S+ would serve it now\n", told
    )
    assert [line.partition("#")[0].split() for line in commands.splitlines()] == [
        ["deployer", "index", "accept", "root/dev", "numpy"],
        ["deployer", "index", "accept", "root/dev"],
    ]
