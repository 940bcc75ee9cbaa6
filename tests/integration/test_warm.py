"""``deployer warm`` as a user has it: real uv and pip, an upstream of the tests, and a server that is offline after."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.engines import need
from tests.indexed_server import JSON, get
from tests.integration.cli import Cli
from tests.integration.installers import INSTALLERS
from tests.upstream import Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

UV = str(Path(sys.executable).with_name("uv"))
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD = '[build-system]\nrequires = ["acme-build"]\nbuild-backend = "acme_build"\n'
SOURCE = {"pyproject.toml": f'{BUILD}[project]\nname = "acme-source"\nversion = "1.0"\n', "acme_source.py": ""}


def named(made: Distribution, filename: str) -> Distribution:
    return dataclasses.replace(made, filename=filename)


def distributions() -> list[Distribution]:
    core = make_wheel("acme-core", "1.2")
    return [
        make_wheel("acme-app", "1.0", requires=["acme-core>=1", "acme-back; python_version < '3.12'"]),
        core,
        *(make_wheel("acme-core", version) for version in ("1.0", "1.1", "2.0a1")),
        named(core, "acme_core-1.2-cp311-cp311-manylinux_2_17_x86_64.whl"),
        named(core, "acme_core-1.2-cp313-cp313-win_amd64.whl"),
        make_wheel("acme-back", "0.1"),
        make_sdist("acme-source", "1.0", files=SOURCE),
        make_wheel("acme-build", "3.0", requires=["acme-tool"]),
        make_wheel("acme-tool", "4.0"),
        *(make_wheel("acme-asked", version) for version in ("1.0", "2.0")),
        make_wheel("acme-broken", "1.0"),
    ]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(distributions(), core_metadata=True) as running:
        yield running


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    need("process")
    made = Cli(home=tmp_path_factory.mktemp("home"), engine="process", upstream=upstream.simple_url)
    try:
        assert made.up("--no-pip").code == 0
        yield made
    finally:
        made.clean()


@pytest.fixture(autouse=True)
def nothing_asked(upstream: Upstream) -> None:
    upstream.forget()


def write(cli: Cli, name: str, text: str) -> str:
    path = cli.home / name
    path.write_text(text)
    return str(path)


def files_asked(upstream: Upstream) -> list[str]:
    return sorted(one.path.rpartition("/")[2] for one in upstream.requests if one.path.startswith("/files/"))


def test_all_that_an_install_needs_is_fetched_once(cli: Cli, upstream: Upstream) -> None:
    wanted = write(cli, "requirements.txt", "acme-app\n")
    words = ("warm", "-r", wanted, "--python", "3.11,3.13", "--platform", "x86_64-manylinux2014", "--json")
    first = cli.run(*words).data
    expected = [
        "acme_app-1.0-py3-none-any.whl",
        "acme_back-0.1-py3-none-any.whl",
        "acme_core-1.2-cp311-cp311-manylinux_2_17_x86_64.whl",
        "acme_core-1.2-py3-none-any.whl",
    ]
    assert (first["fetched"], first["cached"], first["missing"]) == (expected, 0, [])
    assert first["bytes"] > 0
    assert [name for name in files_asked(upstream) if name.endswith(".whl")] == expected
    upstream.forget()
    second = cli.run(*words)
    assert (second.data["fetched"], second.data["cached"], second.data["bytes"]) == ([], 4, 0)
    assert upstream.requests == ()

    # The upstream is gone: both installers get all of it.
    assert cli.run("offline", "on").code == 0
    try:
        for installer in INSTALLERS.values():
            done = installer(f"{cli.url}/root/dev/+simple/", "acme-app", "acme-core")
            assert done.succeeded, done.told
        refused = cli.run(*words)
        assert refused.code == 5 and "offline" in refused.envelope["error"]["hint"]
    finally:
        assert cli.run("offline", "off").code == 0
    assert upstream.requests == ()


def test_a_lock_file_of_uv_is_read_as_it_is(cli: Cli, upstream: Upstream) -> None:
    project = cli.home / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["acme-app", "acme-tool"]\n'
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(cli.home)}
    lock = [UV, "lock", "--quiet", "--default-index", upstream.simple_url, "--python", sys.executable]
    subprocess.run(lock, cwd=project, env=env, check=True)
    upstream.forget()
    done = cli.run("warm", "-r", str(project / "uv.lock"), "--python", "3.13", "--platform", "windows", "--json")
    assert (done.code, done.data["missing"]) == (0, [])
    assert "acme_core-1.2-cp313-cp313-win_amd64.whl" in done.data["fetched"]
    assert upstream.files("acme_tool-4.0-py3-none-any.whl") == 1
    (project / "uv.lock").write_text((project / "uv.lock").read_text().replace("acme_tool-4.0", "acme_tool-4.1"))
    broken = cli.run("warm", "-r", str(project / "uv.lock"), "--json")
    (missing,) = broken.data["missing"]
    assert (broken.code, missing["project"], missing["why"]) == (9, "acme-tool", "no such file")


def test_newest_versions_and_build_dependencies_on_request(cli: Cli) -> None:
    wanted = write(cli, "requirements-source.txt", "acme-core\n")
    found = cli.run("warm", "-r", wanted, "--top", "2", "--platform", "macos", "--json").data
    assert "acme_core-1.1-py3-none-any.whl" in found["fetched"]
    assert found["cached"] + len(found["fetched"]) == 2
    lock = write(
        cli,
        "pylock.toml",
        'lock-version = "1.0"\n[[packages]]\nname = "acme-source"\nversion = "1.0"\n'
        'sdist = {name = "acme_source-1.0.tar.gz"}\n',
    )
    found = cli.run("warm", "-r", lock, "--json").data
    assert found["fetched"] == ["acme_source-1.0.tar.gz"]
    found = cli.run("warm", "-r", lock, "--build-deps", "--json").data
    assert "acme_build-3.0-py3-none-any.whl" in found["fetched"]


def test_what_is_missing_is_named(cli: Cli, upstream: Upstream) -> None:
    wanted = write(cli, "unknown.txt", "acme-unknown\n")
    done = cli.run("warm", "-r", wanted, "--json")
    assert (done.code, len(done.data["unresolved"])) == (9, 1)
    assert any("acme-unknown" in line for line in done.envelope["error"]["details"])
    assert cli.run("warm").code == 2
    assert cli.run("warm", "-r", str(cli.home / "absent.txt")).code == 2
    assert cli.run("warm", "-r", wanted, "--python", "2.7").code == 2
    upstream.faults.path, upstream.faults.wrong_hash = "/simple/acme-broken/", True
    try:
        done = cli.run("warm", "-r", write(cli, "broken.txt", "acme-broken==1.0\n"), "--json")
    finally:
        upstream.faults.path, upstream.faults.wrong_hash = "/", False
    (missing,) = done.data["missing"]
    assert (done.code, missing["why"]) == (9, "another hash than its page says")


def test_what_was_asked_for_in_vain_is_the_next_list(cli: Cli, upstream: Upstream) -> None:
    page = "/root/dev/+simple/acme-asked/"
    listed = json.loads(get(cli.port, page, JSON).body)["files"]
    (old,) = (urljoin(page, file["url"]) for file in listed if "1.0" in file["filename"])
    assert cli.run("offline", "on").code == 0
    try:
        assert cli.pip("download", "--index-url", f"{cli.url}/root/dev/+simple/", "acme-asked").returncode == 1
        assert cli.pip("download", "--no-deps", f"{cli.url}{old}").returncode == 1
        deadline = time.monotonic() + 60
        while "acme_asked-1.0" not in json.dumps(told := cli.run("stats", "--json").data["missed"]):
            assert time.monotonic() < deadline, told
            time.sleep(0.2)
        assert told["indexes"]["root/dev"]["projects"]["acme-asked"] >= 1
        assert "acme-asked" in cli.run("stats").out
    finally:
        assert cli.run("offline", "off").code == 0
    found = cli.run("warm", "--asked", "--json")
    assert (found.code, found.data["fetched"]) == (
        0,
        ["acme_asked-1.0-py3-none-any.whl", "acme_asked-2.0-py3-none-any.whl"],
    )


def test_up_fetches_for_the_files_of_the_profile(tmp_path: Path, upstream: Upstream) -> None:
    need("process")
    (tmp_path / "team").mkdir()
    (tmp_path / "team/requirements.txt").write_text("acme-app\n")
    profile = tmp_path / "team/profile.yaml"
    profile.write_text('warm: [requirements.txt, absent.txt]\ntargets: {python: ["3.13"], platform: [linux]}\n')
    cli = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url)
    try:
        first = cli.up("--no-pip", "--profile", str(profile), "--json")
        assert (first.code, first.data["warmed"]) == (0, None)
        assert any("absent.txt: no such file" in line for line in first.envelope["warnings"])
        profile.write_text(profile.read_text().replace(", absent.txt", ""))
        second = cli.up("--no-pip", "--profile", str(profile), "--json")
        assert second.data["warmed"] == {"cached": 0, "fetched": 2, "missing": 0}
        third = cli.up("--no-pip", "--profile", str(profile), "--no-warm", "--json")
        assert (third.data["warmed"], third.data["server"]) == (None, "unchanged")
        watched = cli.run("warm", "--watched", "--json").data
        assert (watched["cached"], watched["targets"]) == (2, [{"python": "3.13", "platform": "linux"}])
    finally:
        cli.clean()
