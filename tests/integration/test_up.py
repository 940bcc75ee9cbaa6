"""The main job, on every engine of this host: from nothing to an installed package, and back to nothing."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.integration.test_crash import ROOT, Point, crash_argv
from tests.own_image import alone
from tests.upstream import Upstream

PROCESS = pytest.param(("process", "host"), id="process", marks=pytest.mark.server)
DOCKER_HOST = pytest.param(("docker", "host"), id="docker-host", marks=pytest.mark.docker)
DOCKER_BRIDGE = pytest.param(("docker", "bridge"), id="docker-bridge", marks=pytest.mark.docker)
PODMAN_HOST = pytest.param(("podman", "host"), id="podman-host", marks=pytest.mark.podman)
PODMAN_BRIDGE = pytest.param(("podman", "bridge"), id="podman-bridge", marks=pytest.mark.podman)
NERDCTL_HOST = pytest.param(("nerdctl", "host"), id="nerdctl-host", marks=pytest.mark.nerdctl)
NERDCTL_BRIDGE = pytest.param(("nerdctl", "bridge"), id="nerdctl-bridge", marks=pytest.mark.nerdctl)


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream) -> Iterator[Cli]:
    engine, network = request.param
    need(engine)
    made = Cli(home=tmp_path, engine=engine, network=network, upstream=upstream.simple_url)
    try:
        yield made
    finally:
        made.clean()


def files_below(home: Path) -> set[str]:
    """Everything in a home but deployer's own state (a lock file may stay), and what pip's look for a Rust leaves."""
    aside = (home / "state", home / ".rustup", home / "one", home / "two")
    return {str(path) for path in home.rglob("*") if not any(path.is_relative_to(top) for top in aside)}


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_HOST, PODMAN_HOST, NERDCTL_HOST], indirect=True)
def test_from_nothing_to_a_package_and_back(cli: Cli, upstream: Upstream, tmp_path: Path) -> None:
    cli.pip_conf.parent.mkdir(parents=True)
    before = b"# mine\r\n[global]\r\nno-color = true\r\n"
    cli.pip_conf.write_bytes(before)
    untouched = files_below(tmp_path)

    up = cli.up()
    assert up.code == 0, up.err
    assert up.out.strip() == f"{cli.url}/root/dev/+simple/"
    assert "root/pypi created, root/dev created" in up.err
    assert "trusted-host" not in cli.pip_conf.read_text()

    first = cli.pip("download", "--only-binary=:all:", "--dest", str(tmp_path / "one"), "demo")
    assert first.returncode == 0, first.stderr
    assert upstream.lists == 0
    upstream.forget()
    second = cli.pip("download", "--only-binary=:all:", "--dest", str(tmp_path / "two"), "demo")
    assert second.returncode == 0, second.stderr
    assert upstream.requests == ()
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 2

    down = cli.run("down", "--purge", "--yes")
    assert down.code == 0, down.err
    assert cli.run("configure-pip", "--undo").code == 0
    assert cli.pip_conf.read_bytes() == before
    assert files_below(tmp_path) == untouched


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_a_second_up_changes_nothing_and_says_so(cli: Cli) -> None:
    assert cli.up("--json").data["server"] == "created"
    before = cli.run("status", "--json").data
    files = {path: path.read_bytes() for path in (cli.pip_conf,)}
    asked = cli.requests()
    again = cli.up("--json")
    # Does it answer, is it ours, what is there, is the index of the clients open, and do they need a login.
    assert cli.requests()[len(asked) :] == ["GET /+api", "GET /+deployer", "GET /", "GET /root/dev", "GET /root/dev"]
    assert again.data["changes"] == []
    assert again.data["server"] == "unchanged"
    after = cli.run("status", "--json").data
    assert (after["started_at"], after["server_uuid"]) == (before["started_at"], before["server_uuid"])
    assert {path: path.read_bytes() for path in files} == files
    plan = cli.run("plan", *cli.up_words()[1:], "--json")
    assert (plan.code, plan.data["changes"]) == (0, [])
    # An engine's client may take longer to start than all else; `info` is for engines that may be rootless.
    look = ["version", "container inspect", "image inspect"] if cli.engine != "process" else []
    for words in (cli.up_words(), ("plan", *cli.up_words()[1:])):
        assert sorted(call for call in cli.calls(*words) if call != "info") == sorted(look)
    assert cli.calls("status") == look[1:2]


@pytest.mark.parametrize("cli", [DOCKER_HOST, PODMAN_HOST, NERDCTL_HOST], indirect=True)
def test_a_start_asks_the_engine_for_little_and_touches_nothing_of_others(cli: Cli) -> None:
    # How often it is looked at meanwhile depends on how long it takes; `info` is for engines that may be rootless.
    looks = {"container inspect", "info", "ps"}
    held = ["update"] if cli.engine == "nerdctl" else []  # it has its restart policy only once it runs
    up = cli.up_words("--no-pip")
    assert cli.up("--no-pip").code == 0
    argv = json.loads(cli.run("plan", *up[1:-1], "--json").out)["data"]["argv"]
    assert cli.run("down").code == 0
    assert sorted(call for call in cli.calls(*up) if call not in looks) == ["image inspect", "run", *held, "version"]

    assert cli.run("stop").code == 0
    # Of the name that ours has while another takes its place, and somebody else's.
    strangers = f"{cli.name}.previous"
    image = argv[argv.index("--") + 1]
    subprocess.run([cli.engine, "create", "--name", strangers, image], check=True, capture_output=True, env=cli.env)
    try:
        asked = sorted(call for call in cli.calls(*up) if call not in looks)
        assert asked == ["image inspect", "start", *held, *held, "version"]
        assert cli.run("status", "--json").data["state"] == "running"
        words = [cli.engine, "container", "inspect", strangers]
        assert subprocess.run(words, capture_output=True, check=False, env=cli.env).returncode == 0
    finally:
        subprocess.run([cli.engine, "rm", "--force", strangers], check=False, capture_output=True, env=cli.env)


@pytest.mark.parametrize("cli", [DOCKER_HOST, PODMAN_HOST], indirect=True)
@pytest.mark.endurance_of("podman-host")
def test_an_image_that_was_built_since_is_used_and_the_former_one_goes(cli: Cli) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([cli.engine, *words], capture_output=True, check=False, text=True, env=cli.env)

    def present(image: str) -> bool:
        return ask("image", "inspect", image).returncode == 0

    def needed(image: str) -> bool:
        """By another deployment."""
        return bool(ask("ps", "--all", "--quiet", f"--filter=ancestor={image}").stdout.split())

    with alone(cli.engine):
        assert cli.up("--no-pip").code == 0
        former = cli.run("status", "--json").data["image_digest"]
        built = cli.run("image", "build", "--engine", cli.engine, "--json")
        assert built.code == 0, built.err
        assert built.data["id"] != former
        assert present(former)  # what runs needs it
        assert cli.run("status", "--check", "--json").data["drift"] == ["server"]
        changed = cli.up("--no-pip")
        assert changed.code == 0, changed.err
        assert "its image was rebuilt" in changed.err
        status = cli.run("status", "--check", "--json")
        assert (status.code, status.data["image_digest"]) == (0, built.data["id"])
        assert present(former) is needed(former)
        assert cli.up("--no-pip", "--json").data["server"] == "unchanged"
        assert cli.run("image", "build", "--engine", cli.engine).code == 0
        assert cli.run("down").code == 0
        assert present(built.data["id"]) is needed(built.data["id"])


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_uploads_survive_every_kind_of_stop_and_change(cli: Cli, tmp_path: Path) -> None:
    from tests.upstream import make_wheel

    assert cli.up("--no-pip").code == 0
    password = cli.run("secret", "show", "root").out.strip()
    wheel = make_wheel("acme", "1.0")
    path = tmp_path / wheel.filename
    path.write_bytes(wheel.content)
    upload(cli, password, path)

    assert cli.run("restart").code == 0
    assert fetched(cli, "acme", tmp_path / "a") == wheel.content
    changed = cli.up("--no-pip", "--set", "server.request_timeout=44")
    assert changed.code == 0, changed.err
    assert "server.request_timeout: 30 -> 44" in changed.err
    assert fetched(cli, "acme", tmp_path / "b") == wheel.content
    assert cli.run("down").code == 0
    assert cli.run("status", "--json").data["state"] == "absent"
    assert cli.up("--no-pip", "--set", "server.request_timeout=44").code == 0
    assert fetched(cli, "acme", tmp_path / "c") == wheel.content
    assert cli.run("secret", "show", "root").out.strip() == password


def upload(cli: Cli, password: str, path: Path) -> None:
    """As twine does it: one multipart form with the metadata and the file."""
    import httpx

    name, version = path.name.split("-")[:2]
    form = {":action": "file_upload", "name": name, "version": version, "metadata_version": "2.1"}
    answer = httpx.post(
        f"{cli.url}/root/dev/",
        data=form,
        files={"content": (path.name, path.read_bytes())},
        auth=("root", password),
        trust_env=False,
        timeout=180,
    )
    assert answer.status_code == 200, answer.text


def fetched(cli: Cli, project: str, directory: Path) -> bytes:
    done = cli.run("exec", "--", *cli_pip(), "download", "--no-deps", "--dest", str(directory), project)
    assert done.code == 0, done.err
    (path,) = directory.iterdir()
    return path.read_bytes()


def cli_pip() -> tuple[str, ...]:
    import sys

    return (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_a_failed_up_leaves_what_was_there_before(cli: Cli) -> None:
    # From nothing: nothing stays.
    failed = cli.up("--timeout", "1", "--set", "server.threads=0")
    assert failed.code == 3
    assert not cli.data.exists()
    # From something: the same server answers again.
    assert cli.up("--no-pip").code == 0
    before = cli.run("status", "--json").data
    other = "99.99.99.99"
    failed = cli.up("--no-pip", "--bind", other, "--expose", "--timeout", "4")
    assert failed.code in (4, 5, 6), failed.err
    wait_ready(cli)
    after = cli.run("status", "--json").data
    assert (after["server_uuid"], after["url"]) == (before["server_uuid"], before["url"])
    assert cli.run("plan", *cli.up_words()[1:], "--set", "clients.configure=[]", "--json").data["changes"] == []


def wait_ready(cli: Cli) -> None:
    import time

    deadline = time.monotonic() + 180
    while cli.run("status").code != 0:
        assert time.monotonic() < deadline, cli.run("status").err


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_a_failed_first_up_removes_what_it_made(cli: Cli) -> None:
    failed = cli.up("--bind", "99.99.99.99", "--expose")
    assert failed.code == 5, failed.err
    assert not cli.data.exists()
    assert cli.run("status", "--json").data["state"] == "absent"
    assert not cli.pip_conf.exists()


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_what_status_says_fits_the_contract(cli: Cli) -> None:
    absent = cli.run("status", "--json")
    assert (absent.code, absent.data["state"]) == (6, "absent")
    assert cli.up("--no-pip").code == 0
    done = cli.run("status", "--json")
    assert done.code == 0
    keys = (
        "name profile engine network state ready url simple_url server_version server_uuid image image_digest data_dir"
    )
    assert set(keys.split()) | {"data_bytes", "started_at", "indexes", "drift"} <= set(done.data)
    assert done.data["ready"] is True
    assert done.data["state"] == "running"
    assert done.data["data_dir"] == str(cli.data)
    assert done.data["indexes"] == ["root/dev", "root/pypi"]
    uuid = json.loads((cli.data / ".nodeinfo").read_text())["uuid"]
    assert done.data["server_uuid"] == uuid


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_drift_is_told_and_mended(cli: Cli) -> None:
    import httpx

    assert cli.up("--no-pip").code == 0
    password = cli.run("secret", "show", "root").out.strip()
    patched = httpx.patch(
        f"{cli.url}/root/dev",
        json=["volatile=true", "title=by hand"],
        auth=("root", password),
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=180,
    )
    assert patched.status_code == 200, patched.text
    plan = cli.run("plan", *cli.up_words()[1:])
    assert plan.code == 10
    assert "volatile true -> false" in plan.out
    mended = cli.up("--no-pip", "--json")
    assert any("volatile" in change for change in mended.data["changes"])
    config = httpx.get(
        f"{cli.url}/root/dev?no_projects=", headers={"Accept": "application/json"}, trust_env=False
    ).json()
    # Only what the profile owns is put back.
    assert (config["result"]["volatile"], config["result"]["title"]) == (False, "by hand")


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_nothing_shows_the_password(cli: Cli) -> None:
    up = cli.up("--debug")
    assert up.code == 0, up.err
    password = cli.run("secret", "show", "root").out.strip()
    assert len(password) >= 40
    said = [up.out, up.err]
    for words in (("status",), ("status", "--json"), ("logs",), ("plan", *cli.up_words()[1:]), ("doctor",)):
        done = cli.run(*words)
        said += [done.out, done.err]
    assert cli.up("--json", "--set", "server.request_timeout=31").code == 0
    said += [done.out, done.err]
    if cli.engine != "process":
        for words in (
            ("inspect", cli.name),
            ("logs", cli.name),
            ("history", "--no-trunc", "localhost/deployer-devpi:6.20.3"),
        ):
            shown = subprocess.run([cli.engine, *words], capture_output=True, text=True, check=True)
            said += [shown.stdout, shown.stderr]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                said.append((process / name).read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    assert not [text for text in said if password in text]
    # And on disk it is in one file only, which only its owner can read.
    holders = [path for path in cli.home.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert [path.name for path in holders] == ["root-password"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_modes_are_tight_under_any_umask(cli: Cli) -> None:
    before = os.umask(0)
    try:
        assert cli.up().code == 0
    finally:
        os.umask(before)
    loose = [
        path
        for top in (cli.data, cli.home / "state")
        for path in (top, *top.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert loose == []


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_the_server_lets_no_stranger_in(cli: Cli) -> None:
    import httpx

    assert cli.up("--no-pip").code == 0
    with httpx.Client(base_url=cli.url, trust_env=False, timeout=180, headers={"Accept": "application/json"}) as client:
        assert client.post("/+login", json={"user": "root", "password": ""}).status_code == 401
        assert client.put("/mallory", json={"password": ""}).status_code == 403
        config = client.get("/root/dev", params={"no_projects": ""}).json()["result"]
        assert (config["acl_toxresult_upload"], config["mirror_whitelist"]) == ([], [])


@pytest.mark.parametrize("cli", [PROCESS, DOCKER_BRIDGE, PODMAN_BRIDGE, NERDCTL_BRIDGE], indirect=True)
def test_logs(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    everything = cli.run("logs").out.splitlines()
    assert len(everything) > 5
    assert len(cli.run("logs", "-n", "2").out.splitlines()) == 2
    grepped = cli.run("logs", "--grep", "serving at url", "--json").data["lines"]
    assert len(grepped) == 1
    assert cli.run("logs", "--since", "2099-01-01T00:00:00Z").out == ""
    assert cli.run("logs", "--grep", "[").code == 2
    follow = subprocess.Popen(cli.argv("logs", "-f"), env=cli.env, stdout=subprocess.PIPE, text=True)
    try:
        assert follow.stdout is not None
        seen = [follow.stdout.readline().rstrip("\n") for _ in range(3)]
        assert [line in everything for line in seen] == [True] * 3
        assert cli.run("down").code == 0
        follow.communicate(timeout=120)  # it ends with the server
    finally:
        follow.kill()


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_two_at_once_one_works_and_one_says_so(cli: Cli) -> None:
    cli.extra["PYTHONPATH"] = str(ROOT)
    first = subprocess.Popen(
        crash_argv(Point("connect"), "SIGSTOP", cli.up_words("--no-pip")),
        env=cli.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cli.home,
    )
    try:
        assert os.WIFSTOPPED(os.waitpid(first.pid, os.WUNTRACED)[1])
        # In the middle of its work the first one stands still. Nobody gets in its way, nobody waits unasked.
        for words in (cli.up_words("--no-pip"), ("down", "--purge", "--yes"), ("restart",)):
            done = cli.run(*words)
            assert (done.code, "--wait" in done.err) == (75, True), done.err
        patient = subprocess.Popen(
            cli.argv(*cli.up_words("--no-pip", "--wait", "300", "--json")),
            env=cli.env,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cli.home,
        )
        assert patient.poll() is None
    finally:
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    out, _ = patient.communicate(timeout=120)
    assert patient.returncode == 0, out
    assert json.loads(out)["data"]["changes"] in ([], ["server created"])
    assert cli.run("status").code == 0


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_side_by_side(cli: Cli, tmp_path: Path, upstream: Upstream) -> None:
    other = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url)
    assert cli.up("--no-pip").code == 0
    try:
        done = other.run(
            "up", "--engine", "process", "--port", "0", "--data", str(tmp_path / "other"), "--no-pip", "--json"
        )
        assert done.code == 0, done.err
        assert done.data["url"] != cli.url
        # A free port, once found, is kept.
        again = other.run(
            "up", "--engine", "process", "--port", "0", "--data", str(tmp_path / "other"), "--no-pip", "--json"
        )
        assert (again.data["url"], again.data["changes"]) == (done.data["url"], [])
        assert cli.run("status").code == other.run("status").code == 0
        # The same data directory is not for two: neither for one that has another, nor for one that has none.
        words = ("up", "--engine", "process", "--port", "0", "--data", str(cli.data), "--no-pip")
        assert other.run(*words).code == 11
        assert other.run("down", "--engine", "process").code == 0
        shared = other.run(*words)
        assert shared.code in (5, 6), shared.err
    finally:
        other.clean()
    assert cli.run("status").code == 0


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_another_profile_is_not_switched_to_by_accident(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    refused = cli.up("--no-pip", "--profile", "vpn")
    assert (refused.code, "--replace" in refused.err) == (5, True)
    assert cli.up("--no-pip", "--profile", "vpn", "--replace").code == 0
    assert cli.run("status", "--json").data["profile"] == "vpn"


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_throw_away(cli: Cli) -> None:
    done = cli.run("up", "--profile", "ci", "--engine", "process", "--upstream", cli.upstream, "--json")
    assert done.code == 0, done.err
    assert not cli.pip_conf.exists()
    data = Path(cli.run("status", "--json").data["data_dir"])
    assert data.name.endswith(cli.name)
    assert cli.run("down").code == 0
    assert not data.exists()


@pytest.mark.docker
@pytest.mark.upstream
def test_the_real_upstream_through_a_bridge(tmp_path: Path) -> None:
    """One small package of the index that this host's pip uses, through a bridge; never its list of names."""
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", network="bridge")
    try:
        up = cli.up()
        assert up.code == 0, up.err
        done = cli.pip("download", "--no-deps", "--dest", str(tmp_path / "dl"), "six")
        assert done.returncode == 0, done.stderr
        assert f"Looking in indexes: {cli.url}/root/dev/+simple/" in done.stdout
        cached = [path for path in (cli.data / "+files").rglob("six-*") if path.is_file()]
        assert len(cached) == 1
    finally:
        cli.clean()
