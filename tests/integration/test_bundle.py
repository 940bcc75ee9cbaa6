"""Bundles between two deployments of this host: round trip, deltas, conflicts, damage, and kills before each effect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.engines import need
from tests.forked import run_module
from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli, Done
from tests.upstream import Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = (
    make_wheel("alpha", "1.0", requires=["beta"]),
    make_wheel("alpha", "2.0"),
    make_wheel("beta", "1.0"),
    make_sdist("gamma", "1.0"),
)
OWN = make_wheel("acme-core", "1.0")
LATER = make_wheel("acme-core", "1.1")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(list(PUBLIC), core_metadata=True) as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``key`` and ``key.pub``; ``other.pub`` of another one."""
    found = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(found / name)], check=True)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    """A deployment whose cache has all but alpha 2.0, and that has an upload."""
    cli = Cli(
        home=tmp_path_factory.mktemp("here"),
        engine="process",
        upstream=upstream.simple_url,
        extra={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        done = cli.up()
        assert done.code == 0, done.err
        for project in ("alpha", "beta", "gamma"):
            fetch(cli, project, "1.0")
        put(cli, OWN)
        yield cli
    finally:
        cli.clean()


def fetch(cli: Cli, project: str, version: str) -> None:
    """Have the server cache the file of a release, with its metadata."""
    for file in json.loads(get(cli.port, f"/root/dev/+simple/{project}/", JSON).body)["files"]:
        path = "/" + file["url"].replace("../", "")
        if f"-{version}" in path:
            assert get(cli.port, path, FILE).status == 200
            if path.endswith(".whl"):
                assert get(cli.port, f"{path}.metadata", FILE).status == 200


def put(cli: Cli, wheel: Distribution, code: int = 0) -> None:
    path = cli.home / wheel.filename
    path.write_bytes(wheel.content)
    done = cli.run("package", "upload", str(path), "--index", "root/dev")
    assert done.code == code, done.err


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Cli]:
    """A machine with nothing on it."""
    home = tmp_path / "there"
    home.mkdir()
    extra = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    cli = Cli(home=home, engine="process", extra=extra)
    try:
        yield cli
    finally:
        cli.clean()


def create(cli: Cli, path: Path | str, *words: str, code: int = 0) -> Done:
    done = cli.run("bundle", "create", str(path), "--no-wheels", "--json", *words)
    assert done.code == code, done.out + done.err
    return done


def load(cli: Cli, path: Path, *words: str, code: int = 0, first: bool = True) -> Done:
    where = ("--engine", cli.engine, "--port", str(cli.port), "--data", str(cli.data)) if first else ()
    done = cli.run("bundle", "load", str(path), "--no-pip", "--json", *where, *words)
    assert done.code == code, done.out + done.err
    return done


def served(cli: Cli, project: str) -> dict[str, str]:
    """The files of a project with their hashes, each fetched."""
    page = get(cli.port, f"/root/dev/+simple/{project}/", JSON)
    files = json.loads(page.body)["files"] if page.status == 200 else []
    for file in files:
        assert get(cli.port, "/" + file["url"].replace("../", ""), FILE).status == 200
    return {file["filename"]: file["hashes"]["sha256"] for file in files}


WHOLE = {
    "alpha": {PUBLIC[0].filename: PUBLIC[0].sha256},
    "beta": {PUBLIC[2].filename: PUBLIC[2].sha256},
    "gamma": {PUBLIC[3].filename: PUBLIC[3].sha256},
    "acme-core": {OWN.filename: OWN.sha256},
}


def all_served(cli: Cli) -> dict[str, dict[str, str]]:
    return {project: served(cli, project) for project in WHOLE}


@pytest.fixture(scope="module")
def air(here: Cli, keys: Path) -> Path:
    """A signed bundle of all that is here."""
    path = here.home / "air.tar"
    told = create(here, path, "--sign", str(keys / "key")).data
    assert (told["files"], told["signed"], told["delta"], told["image"]) == (4, True, False, None)
    return path


def test_all_that_was_here_is_there(air: Path, there: Cli, keys: Path, upstream: Upstream) -> None:
    told = there.run("bundle", "inspect", str(air), "--verify", str(keys / "key.pub"), "--json").data
    assert (told["signed"], told["verified"], len(told["files"])) == (True, True, 4)
    asked = len(upstream.requests)
    done = load(there, air, "--verify", str(keys / "key.pub"))
    assert len(done.data["loaded"]) == 4
    assert all_served(there) == WHOLE
    assert there.run("status", "--json").data["offline"] is True
    # Every field of the page, and the upstream's own metadata.
    (file,) = json.loads(get(there.port, "/root/dev/+simple/alpha/", JSON).body)["files"]
    assert get(there.port, f"/{file['url'].replace('../', '')}.metadata", FILE).body == PUBLIC[0].metadata
    done = there.pip(
        "install", "--target", str(there.home / "t"), "--index-url", f"{there.url}/root/dev/+simple/", "alpha"
    )
    assert done.returncode == 0, done.stderr
    assert len(upstream.requests) == asked
    again = load(there, air, first=False)
    assert (again.data["loaded"], again.data["same"]) == ([], 4)
    assert "not verified" in again.envelope["warnings"][0]
    # Online, the upstream is asked at once: what was loaded may be old.
    assert there.run("offline", "off").code == 0
    assert set(served(there, "alpha")) == {PUBLIC[0].filename, PUBLIC[1].filename}


def test_a_directory_serves_as_well(here: Cli, there: Cli, tmp_path: Path) -> None:
    create(here, f"{tmp_path}/air/")
    assert create(here, tmp_path / "air", code=5).envelope["error"]["code"] == "conflict"
    load(there, tmp_path / "air")
    assert all_served(there) == WHOLE


def test_lock_files_select(here: Cli, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"alpha==1.0 --hash=sha256:{PUBLIC[0].sha256}\nacme.core==1.0\n")
    create(here, tmp_path / "some.tar", "-r", str(lock))
    told = here.run("bundle", "inspect", str(tmp_path / "some.tar"), "--json").data
    assert sorted(file["filename"] for file in told["files"]) == sorted([PUBLIC[0].filename, OWN.filename])
    lock.write_text("alpha==1.0\nalpha-two==3\nbeta==9.9\n")
    done = create(here, tmp_path / "holes.tar", "-r", str(lock), code=9)
    assert "alpha-two==3" in done.envelope["error"]["message"]
    assert done.envelope["error"]["details"] == ["also: beta==9.9"]
    assert done.envelope["error"]["hint"].startswith("deployer warm")
    assert not list(tmp_path.glob("holes*"))


def test_a_delta_has_what_the_other_side_lacks(here: Cli, air: Path, there: Cli, tmp_path: Path) -> None:
    load(there, air)
    have = tmp_path / "have.json"
    assert there.run("bundle", "manifest", str(have), "--json").data["files"] == 4
    told = create(here, tmp_path / "nothing.tar", "--since", str(have)).data
    assert (told["files"], told["delta"]) == (0, True)
    assert (tmp_path / "nothing.tar").stat().st_size < 1_000_000
    assert load(there, tmp_path / "nothing.tar", first=False).data["loaded"] == []
    put(there, LATER)  # their own release
    create(here, tmp_path / "index.tar", "--since", str(have), "--index", "root/dev")
    assert load(there, tmp_path / "index.tar", first=False).data["loaded"] == []
    assert served(there, "acme-core") == {OWN.filename: OWN.sha256, LATER.filename: LATER.sha256}


def test_conflicts_are_shown_before_anything_changes(here: Cli, air: Path, there: Cli, tmp_path: Path) -> None:
    other = make_wheel("acme-core", "1.0", files={"acme_core.py": "version = 'theirs'\n"})
    done = there.up("--no-pip", "--upstream", "http://127.0.0.1:9/simple/")
    assert done.code == 0, done.err
    put(there, other)
    done = load(there, air, code=5, first=False)
    lines = [done.envelope["error"]["message"], *done.envelope["error"]["details"]]
    assert len(lines) == 2 and any(OWN.filename in line for line in lines)
    assert any("mirrors http://127.0.0.1:9/simple/ here" in line for line in lines)
    assert "profile of its own" in load(there, air, code=5).envelope["warnings"][-1]
    assert served(there, "acme-core") == {other.filename: other.sha256}
    assert there.run("package", "list", "--index", "root/pypi", "--json").data["projects"] == []


def test_damaged_and_foreign_bundles_load_nothing(air: Path, there: Cli, keys: Path, tmp_path: Path) -> None:
    content = air.read_bytes()
    bad = tmp_path / "bad.tar"
    place = content.index(OWN.content) + len(OWN.content) // 2
    cases = {
        "a changed file": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "a changed name": content.replace(b'"acme-core"', b'"acme-cora"', 1),
        "half of it": content[: len(content) // 2],
    }
    for case, changed in cases.items():
        bad.write_bytes(changed)
        done = load(there, bad, code=9)
        assert done.envelope["error"]["hint"], case
        assert not there.data.exists(), case
    assert load(there, air, "--verify", str(keys / "other.pub"), code=9).envelope["error"]["hint"]
    assert load(there, air, "--verify", str(keys / "key"), code=2).envelope["error"]["hint"]
    assert there.run("status").code == 6


def test_the_profile_of_an_unknown_sender_decides_nothing_about_this_host(
    here: Cli, there: Cli, keys: Path, tmp_path: Path
) -> None:
    made, profile = tmp_path / "made", tmp_path / "there.yaml"
    credentials = {"token": f"command:touch {made}"}
    private = {"type": "mirror", "url": "http://127.0.0.1:9/simple/", "credentials": credentials}
    told = {"extends": "default", "network": {"port": there.port}, "indexes": {"root/private": private}}
    profile.write_text(json.dumps(told))
    create(here, tmp_path / "air.tar", "--profile", str(profile), "--sign", str(keys / "key"))
    message = load(there, tmp_path / "air.tar", code=11).envelope["error"]["message"]
    assert "indexes.root/private.credentials, network" in message
    assert not made.exists() and not there.data.exists()


# Killed before each effect


def effects(cli: Cli, words: Sequence[str]) -> list[str]:
    """What a command does, a line for each effect (:mod:`tests.crash`)."""
    read, write = os.pipe()
    with os.fdopen(read) as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash", "SIGKILL", "0", "never", *words],
            env={**cli.env, "CRASH_TOLD": str(write)},
            cwd=cli.home,
            pass_fds=(write,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        lines = told.read().splitlines()
    assert process.wait(300) == 0
    return lines


def moments(told: Sequence[str]) -> list[tuple[str, int]]:
    """Each effect at its first and its last time; those in directories with other names each time are left out."""
    counted = Counter(effect for effect in told if "/tmp/deployer-" not in effect)
    return [(effect, count) for effect, all_ in counted.items() for count in sorted({1, all_})]


def kill(cli: Cli, moment: tuple[str, int], words: Sequence[str]) -> int:
    effect, count = moment
    crash = ("SIGKILL", str(count), effect, *words)
    return run_module("tests.crash", crash, env=cli.env, cwd=cli.home, timeout=300).returncode


def test_create_goes_on_from_a_kill_before_any_effect(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "air"
    words = ("bundle", "create", str(path), "--no-wheels")
    found = moments(effects(here, words))
    assert len(found) > 5
    killed = 0
    for moment in found:
        path.unlink(missing_ok=True)
        killed += kill(here, moment, words) == -signal.SIGKILL
        finished = here.run("bundle", "inspect", str(path)).code == 0
        if not finished:
            again = here.run(*words)
            assert again.code == 0, (moment, again.err)
        assert here.run("bundle", "inspect", str(path)).code == 0, moment
        assert not Path(f"{path}.part").exists()
    assert killed > len(found) // 2


def test_load_goes_on_from_a_kill_before_any_effect(air: Path, there: Cli) -> None:
    """The files are loaded into a server that runs: `up` itself is killed in ``test_crash.py``."""
    load(there, air)
    words = ("bundle", "load", str(air), "--no-pip")
    for project in ("alpha", "beta", "gamma"):
        assert there.run("package", "remove", project, "--index", "root/pypi", "--yes").code == 0
    found = [moment for moment in moments(effects(there, words)) if moment[0] == "connect" or "bundle" in moment[0]]
    assert all_served(there) == WHOLE
    killed = 0
    for moment in [(effect, number) for effect, most in found for number in range(1, most + 1, 4)]:
        for project in ("alpha", "beta", "gamma"):
            assert there.run("package", "remove", project, "--index", "root/pypi", "--yes").code == 0
        killed += kill(there, moment, words) == -signal.SIGKILL
        for project, files in all_served(there).items():
            assert files.items() <= WHOLE[project].items(), moment
        again = there.run(*words)
        assert again.code == 0, (moment, again.err)
        assert all_served(there) == WHOLE, moment
    assert killed


@pytest.mark.docker
def test_an_engine_gets_its_image_from_the_bundle(upstream: Upstream, tmp_path: Path) -> None:
    need("docker")
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    one = Cli(home=tmp_path / "a", engine="docker", network="host", upstream=upstream.simple_url)
    other = Cli(home=tmp_path / "b", engine="docker", network="host")
    try:
        assert one.up().code == 0
        fetch(one, "beta", "1.0")
        told = create(one, tmp_path / "air.tar").data
        assert told["image"].startswith("localhost/deployer-devpi:")
        done = load(other, tmp_path / "air.tar", "--network", "host")
        assert done.data["loaded"] == [f"root/pypi/{PUBLIC[2].filename}"]
        assert served(other, "beta") == WHOLE["beta"]
        have = tmp_path / "have.json"
        assert other.run("bundle", "manifest", str(have)).code == 0
        assert create(one, tmp_path / "delta.tar", "--since", str(have)).data["image"] is None
        assert (tmp_path / "delta.tar").stat().st_size < 1_000_000
    finally:
        one.clean()
        other.clean()
