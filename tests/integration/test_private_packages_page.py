"""docs/how-to/private-packages.md, followed to the letter by somebody who did what it warns of: on the data of a plain
devpi-server, with a home that nothing of ours has ever been in."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.indexed_server import upload
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi, init
from tests.server_process import auth_header, login, request
from tests.upstream import Faults, Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/how-to/private-packages.md"
_, SECTION, *_ = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
BLOCKS = re.findall(r"^```(sh|yaml)\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
PROFILES = [text for kind, text in BLOCKS if kind == "yaml"]
RECIPE, NOTHING_RUNS, STOP, TAKE_OVER, CHECK, UPLOADED = range(6)
OLD, NEW = "t0ken-that-everybody-knows", "t0ken-that-is-new"


@dataclass
class Reader:
    """Somebody with a shell. Only what can't be the same everywhere is put in the place of what the page has."""

    cli: Cli
    private: Upstream
    public: Upstream
    server: PlainDevpi

    def text(self, text: str) -> str:
        instead = {
            "https://deploy:TOKEN@packages.example.com/simple/": f"http://deploy:{OLD}@{self.private.simple_url[7:]}",
            "https://packages.example.com/simple/": self.private.simple_url,
            "https://index.example.com/simple/": self.public.simple_url,
            "http://localhost:3141": f"http://localhost:{self.server.port}",
            "/var/cache/devpi": str(self.server.serverdir),
        }
        for on_page, here in instead.items():
            text = text.replace(on_page, here)
        return text

    def write(self, profile: str) -> None:
        (self.cli.home / "team.yaml").write_text(self.text(profile))

    def run(self, block: int) -> dict[str, subprocess.CompletedProcess[str]]:
        """Each line of a block, as typed; the answers."""
        answers = {}
        for line in self.text(SHELL[block]).splitlines():
            env = {
                "HOME": str(self.cli.home),
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "PIP_CONFIG_FILE": str(self.cli.pip_conf),
                "PRIVATE_TOKEN": NEW,
                # In the place of an engine, a port and a public index that the host has.
                "DEPLOYER_ENGINE": "process",
                "DEPLOYER_PORT": str(self.server.port),
                "DEPLOYER_UPSTREAM": self.public.simple_url,
            }
            words = ["bash", "-c", line]
            answers[line] = subprocess.run(
                words, env=env, cwd=self.cli.home, capture_output=True, text=True, timeout=300, check=False
            )
        return answers

    def works(self, block: int) -> str:
        """The same, of which everything must work: all that was said."""
        answers = self.run(block)
        for line, done in answers.items():
            wanted = 10 if line.startswith("deployer plan") else 0
            assert done.returncode == wanted, f"{line}\n{done.stdout}{done.stderr}"
        return "".join(done.stdout + done.stderr for done in answers.values())

    def installs(self, *projects: str) -> list[str]:
        done = self.cli.pip("download", "--no-deps", "--retries", "0", "-d", str(self.cli.home / "got"), *projects)
        assert done.returncode == 0, done.stderr
        return sorted(path.name.partition("-py3")[0] for path in (self.cli.home / "got").iterdir())


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    home = tmp_path / "home"
    home.mkdir()
    server = PlainDevpi(tmp_path / "data")
    cli = Cli(home=home, engine="process", port=server.port, name="devpi", extra={"DEPLOYER_STATE_DIR": ""})
    private = Upstream([make_wheel("acme-core", "1.1.0"), make_wheel("shop", "1.0")], Faults(auth=("deploy", OLD)))
    public = Upstream([make_wheel("acme-core", "9.9.9"), make_wheel("pubonly", "1.0")])
    with private, public:
        try:
            yield Reader(cli, private, public, server)
        finally:
            server.stop()
            cli.clean()


def follow_the_recipe(reader: Reader) -> None:
    """What the page begins with, until everything that it warns of has come true."""
    init(reader.server.serverdir, password="")
    reader.server.start()
    reader.works(RECIPE)
    url = f"{reader.server.url}/root/dev/+simple/"
    got = reader.cli.pip("download", "--no-deps", "-d", str(reader.cli.home / "before"), "-i", url, "acme-core")
    assert got.returncode == 0 and "acme_core-9.9.9" in " ".join(
        path.name for path in (reader.cli.home / "before").iterdir()
    )
    assert OLD in str(request(reader.server.port, "GET", "/root/private?no_projects=")[1])


def stop_the_old_one(reader: Reader) -> None:
    assert SHELL[STOP] == "sudo nerdctl rm -f devpi\n"  # which a server without a container does not need
    reader.server.stop()
    reader.private.faults.auth = ("deploy", NEW)


def test_the_page_has_these_commands_and_files() -> None:
    assert len(SHELL) == UPLOADED + 1
    assert [text.split("\n")[0] for text in PROFILES] == ["extends: private-first"] * 2


def test_from_nothing(reader: Reader) -> None:
    reader.private.faults.auth = ("deploy", NEW)
    reader.write(PROFILES[0])
    reader.works(NOTHING_RUNS)
    reader.works(CHECK)
    assert reader.installs("acme-core", "pubonly", "shop") == ["acme_core-1.1.0", "pubonly-1.0", "shop-1.0"]


def test_from_the_recipe(reader: Reader) -> None:
    follow_the_recipe(reader)
    stop_the_old_one(reader)
    reader.write(PROFILES[0])
    told = reader.works(TAKE_OVER)
    assert "root/dev removed" in told and "root/dev created" in told
    assert "root/pypi-public" in told  # it has cached something, so it is kept and told
    told = reader.works(CHECK)
    assert "acme_core-1.1.0" in " ".join(path.name for path in reader.cli.home.iterdir())
    assert reader.installs("acme-core", "pubonly", "shop") == ["acme_core-1.1.0", "pubonly-1.0", "shop-1.0"]
    for path in ("/root/private?no_projects=", "/"):
        shown = str(request(reader.server.port, "GET", path)[1])
        assert OLD not in shown and NEW not in shown
    assert login(reader.server.port, "")[0] == 401


def test_from_the_recipe_with_packages_that_were_uploaded(reader: Reader) -> None:
    follow_the_recipe(reader)
    auth = auth_header(login(reader.server.port, "")[1]["result"]["password"])
    assert upload(reader.server, auth, "root/dev", make_wheel("ours", "3.0")) == 200
    stop_the_old_one(reader)
    reader.write(PROFILES[0])
    (done,) = reader.run(TAKE_OVER).values()
    assert (done.returncode, "root/dev is of type stage" in done.stderr) == (5, True)
    reader.write(PROFILES[1])
    reader.works(UPLOADED)
    assert reader.installs("acme-core", "ours", "pubonly") == ["acme_core-1.1.0", "ours-3.0", "pubonly-1.0"]
    reader.works(CHECK)
