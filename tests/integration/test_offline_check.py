"""``deployer offline check``: real pip and uv in a network that leads nowhere but to the index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.indexed_server import JSON, get
from tests.integration.cli import Cli
from tests.integration.test_warm import distributions, write
from tests.upstream import Upstream

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(distributions(), core_metadata=True) as running:
        yield running


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    need("process")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    made = Cli(home=tmp_path_factory.mktemp("home"), engine="process", upstream=upstream.simple_url)
    try:
        assert made.up("--no-pip").code == 0
        yield made
    finally:
        made.clean()


def test_holes_are_listed_filled_and_gone(cli: Cli, upstream: Upstream) -> None:
    wanted = write(cli, "requirements.txt", "acme-app\n")
    words = ("-r", wanted, "--python", f"3.{sys.version_info.minor},3.13", "--json")
    upstream.forget()
    before = cli.run("offline", "check", *words)
    assert before.code == 9
    assert {(hole["project"], hole["why"]) for hole in before.data["holes"]} == {("acme-app", "nothing of it is here")}
    assert {hole["by"] for hole in before.data["holes"]} == {"pip", "uv"}
    assert upstream.requests == ()
    # Others see the whole index meanwhile, and after.
    assert "acme_app-1.0" in get(cli.port, "/root/dev/+simple/acme-app/", JSON).body.decode()

    assert cli.run(*before.data["warm"].split()[1:], "--json").code == 0
    upstream.forget()
    after = cli.run("offline", "check", *words)
    assert (after.code, after.data["holes"], after.data["warm"]) == (0, [], "")
    assert [one["installed_by"] for one in after.data["checked"]] == [["pip", "uv"], []]
    assert all(one["files"] >= 2 for one in after.data["checked"])
    assert upstream.requests == ()


def test_a_lock_file_from_before_installs_after(cli: Cli, upstream: Upstream) -> None:
    project = cli.home / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["acme-build"]\n'
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(cli.home)}
    lock = [UV, "lock", "--quiet", "--default-index", upstream.simple_url, "--python", sys.executable]
    subprocess.run(lock, cwd=project, env=env, check=True)
    path = str(project / "uv.lock")
    before = cli.run("offline", "check", "-r", path, "--json")
    named = {hole["file"] for hole in before.data["holes"] if not hole["by"]}
    assert (before.code, named) == (9, {"acme_build-3.0-py3-none-any.whl", "acme_tool-4.0-py3-none-any.whl"})
    assert cli.run("warm", "-r", path, "--json").code == 0
    upstream.forget()
    assert cli.run("offline", "check", "-r", path, "--json").code == 0
    assert upstream.requests == ()


def test_nothing_is_claimed_where_no_network_can_be_made(cli: Cli) -> None:
    wanted = write(cli, "some.txt", "acme-app\n")
    bin_ = cli.home / "bin"
    bin_.mkdir()
    (bin_ / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    (bin_ / "unshare").chmod(0o755)
    refused = cli.run("offline", "check", "-r", wanted, "--json", env={"PATH": f"{bin_}:{os.environ['PATH']}"})
    assert refused.code == 5
    assert "Operation not permitted" in refused.envelope["error"]["message"]
    assert "run it as root" in refused.envelope["error"]["hint"]


def test_programs_have_no_way_out_but_the_index(cli: Cli, upstream: Upstream) -> None:
    """A build that asks the upstream itself fails, as it will at the customer's."""
    code = (
        "import json, socket, sys, tempfile\n"
        "from pathlib import Path\n"
        "from deployer.host.isolation import isolated, URL\n"
        "from deployer.host.runner import Runner\n"
        "from deployer.operations.offline_check.gateway import Gateway\n"
        "ask = 'import sys, urllib.request as u\\nfor url in sys.argv[1:]:\\n try: print(u.urlopen(url).status)\\n"
        " except OSError as error: print(error)'\n"
        "with tempfile.TemporaryDirectory() as home, Gateway(sys.argv[1]) as gateway:\n"
        "    with isolated(Path(home), gateway.serve) as around:\n"
        "        done = Runner().run((*around, sys.executable, '-c', ask, URL + '/+api', sys.argv[1], sys.argv[2]))\n"
        "        print(done.stdout, done.stderr)\n"
    )
    words = [sys.executable, "-c", code, cli.url, upstream.simple_url]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")
    assert said[0] == "200"
    assert all("refused" in line or "unreachable" in line for line in said[1:3])
