"""`deployer backup` as a user has it: taken while the server serves, verified, restored here and elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.integration.test_crash import crash, effects, points
from tests.server_process import login
from tests.upstream import make_wheel

ROOT = Path(__file__).resolve().parents[2]
PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
WHEEL = make_wheel("mine", "1.0")


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(
        home=tmp_path,
        engine=request.param,
        upstream="http://127.0.0.1:9/simple/",
        extra={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        yield made
    finally:
        made.clean()


def profile(cli: Cli, *lines: str) -> str:
    path = cli.home / "profile.yaml"
    path.write_text("\n".join(("extends: default", "backup:", f"  directory: {cli.home}/backups", *lines, "")))
    return str(path)


def upload(cli: Cli, name: str = "mine", version: str = "1.0") -> str:
    wheel = make_wheel(name, version)
    (cli.home / wheel.filename).write_bytes(wheel.content)
    done = cli.run("package", "upload", "--index", "root/dev", str(cli.home / wheel.filename))
    assert done.code == 0, done.err
    return wheel.filename


def projects(cli: Cli) -> list[str]:
    return list(cli.run("package", "list", "--index", "root/dev", "--json").data["projects"])


def elsewhere(cli: Cli, tmp_path: Path) -> Cli:
    """Another machine: nothing of the first one but the backups is there."""
    (tmp_path / "other").mkdir()
    return replace(cli, home=tmp_path / "other", name=f"{cli.name}-2", port=cli.port + 1, shared=None)


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_from_one_machine_to_another(cli: Cli, tmp_path: Path) -> None:
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"# made by age-keygen\n{key}\n")
    after = f"  after: [cp, '{{directory}}/backups/{{name}}.json', {tmp_path}/hooked]"
    words = ("--profile", profile(cli, f"  recipient: {key.to_public()}", after))
    assert cli.up("--no-pip", *words).code == 0
    upload(cli)
    first = cli.run("backup", "create", "--json")
    assert first.code == 0, first.out
    assert (first.data["files"], first.data["secrets"], first.data["lost"]) == (1, True, [])
    second = cli.run("backup", "create", "--json")
    assert second.code == 0, second.out
    again = second.data
    manifest = tmp_path / f"backups/backups/{again['name']}.json"
    assert manifest.read_text() == (tmp_path / "hooked").read_text()
    password = cli.run("secret", "show", "root").out.strip()
    everything = [path for path in (tmp_path / "backups").rglob("*") if path.is_file()]
    assert not any(password.encode() in path.read_bytes() for path in everything)
    assert not any(path.stat().st_mode & 0o077 for path in everything if path.stat().st_nlink == 1)

    verified = cli.run("backup", "verify", "--identity", str(tmp_path / "key"), "--json")
    assert verified.code == 0, verified.out
    assert verified.data["installed"].endswith(f"/{WHEEL.filename}")
    assert verified.data["password"] is True
    assert not list(tmp_path.glob(".backups*"))

    other = elsewhere(cli, tmp_path)
    try:
        place = ("--port", str(other.port), "--data", str(other.data), "--directory", f"{tmp_path}/backups")
        if os.getuid() == 0:  # the profile may name commands, and is not believed if another user could have written it
            subprocess.run(["chown", "-R", "3141:3141", tmp_path / "backups"], check=True)
            refused = other.run("backup", "restore", *place, "--no-pip")
            assert (refused.code, "then add --profile" in refused.err) == (11, True), refused.err
            subprocess.run(["chown", "-R", "0:0", tmp_path / "backups"], check=True)
        restored = other.run("backup", "restore", *place, "--identity", str(tmp_path / "key"), "--no-pip", "--json")
        assert restored.code == 0, restored.out
        assert (restored.data["kept"], projects(other)) == ("", ["mine"])
        assert other.run("secret", "show", "root").out.strip() == password
        assert login(other.port, password)[0] == 200
    finally:
        other.clean()

    for number in range(3):
        upload(cli, "more", f"1.{number}")
        assert cli.run("backup", "create").code == 0
    pruned = cli.run("backup", "prune", "--keep-last", "2", "--json").data
    assert (len(pruned["removed"]), len(pruned["kept"])) == (3, 2)
    assert [one["name"] for one in cli.run("backup", "list", "--json").data["backups"]] == pruned["kept"]


@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_present_data_is_set_aside_and_refused_without_a_word(cli: Cli, tmp_path: Path) -> None:
    directory = ("--directory", str(tmp_path / "backups"))
    assert cli.up("--no-pip").code == 0
    upload(cli)
    assert cli.run("backup", "create", *directory).code == 0
    upload(cli, "later")
    refused = cli.run("backup", "restore", *directory, "--no-pip")
    assert (refused.code, "--replace" in refused.err, projects(cli)) == (5, True, ["later", "mine"])
    done = cli.run("backup", "restore", *directory, "--replace", "--no-pip", "--json")
    assert done.code == 0, done.out
    assert projects(cli) == ["mine"]
    kept = Path(done.data["kept"])
    assert list(kept.glob("+files/root/dev/+f/*/*/later-1.0*"))
    upload(cli, "new")  # root's new password is known
    shutil.rmtree(kept)


@pytest.mark.parametrize("cli", [DOCKER], indirect=True)
def test_a_volume(cli: Cli, tmp_path: Path) -> None:
    """Its backup is a directory of this host, and restores to a directory, which `verify` does, or another volume."""
    directory = ("--directory", str(tmp_path / "backups"))
    volumes = [f"{cli.name}-data", f"{cli.name}-new"]
    up = list(cli.up_words("--no-pip"))
    up[up.index("--data") + 1] = f"volume:{volumes[0]}"
    assert cli.run(*up).code == 0
    upload(cli)
    made = cli.run("backup", "create", *directory, "--json")
    assert (made.code, made.data.get("files")) == (0, 1), made.out
    verified = cli.run("backup", "verify", *directory, "--json")
    assert verified.code == 0, verified.out
    assert verified.data["installed"].endswith(f"/{WHEEL.filename}")
    checked = cli.run("check", "--json")
    assert (checked.code, checked.data.get("files")) == (0, 1), checked.out
    refused = cli.run("backup", "restore", *directory, "--replace", "--no-pip")
    assert (refused.code, "--data volume:NAME" in refused.err) == (5, True)
    done = cli.run("backup", "restore", *directory, "--replace", "--data", f"volume:{volumes[1]}", "--no-pip")
    assert done.code == 0, done.err
    assert projects(cli) == ["mine"]
    subprocess.run([cli.engine, "volume", "rm", volumes[0]], check=True, capture_output=True)


@pytest.mark.timeout(500)
@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_a_kill_at_any_step_of_a_restore_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    words = ("backup", "restore", "--directory", str(tmp_path / "backups"), "--replace", "--no-pip")
    assert cli.up("--no-pip").code == 0
    upload(cli)
    assert cli.run("backup", "create", *words[2:4]).code == 0
    moments = [point for point in points(effects(cli, words)) if "site-packages" not in point.effect]
    codes = []
    for moment in moments[:: max(1, len(moments) // 6)]:
        code, said = crash(cli, moment, "SIGKILL", words)
        codes.append(code)
        assert code in (0, 1, 5, -signal.SIGKILL), (moment, said)
        healed = cli.run(*words)
        assert healed.code == 0, (moment, healed.err)
        assert projects(cli) == ["mine"]
    assert codes.count(-signal.SIGKILL) >= 3
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("data.before-restore")]
    assert all(hashlib.sha256(next(path.rglob(WHEEL.filename)).read_bytes()).hexdigest() for path in aside)


@pytest.mark.server
def test_what_is_refused(tmp_path: Path) -> None:
    cli = Cli(home=tmp_path, engine="process", extra={"PYTHONPATH": str(ROOT)})
    assert cli.run("backup", "create").code == 2
    assert cli.run("backup", "create", "--directory", str(tmp_path / "b")).code == 5
    assert cli.run("backup", "list", "--directory", "/").code == 11
    assert cli.run("backup", "restore", "--directory", str(tmp_path / "b"), "--no-pip").code == 5
    (tmp_path / "b/backups").mkdir(parents=True)
    (tmp_path / "b/backups/0001-20260101T000000Z.json").write_text(json.dumps({"schema": 1}))
    damaged = cli.run("backup", "list", "--directory", str(tmp_path / "b"))
    assert (damaged.code, "Traceback" in damaged.err) == (9, False)
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").rglob("*.json"))


@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed (Debian: apt install restic)")
@pytest.mark.parametrize("cli", [PROCESS], indirect=True)
def test_restic_takes_them_elsewhere_and_back(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the repository\n")
    restic = [
        str(shutil.which("restic")),
        "--repo",
        f"{tmp_path}/repository",
        "--password-file",
        f"{tmp_path}/password",
    ]
    subprocess.run([*restic, "init"], check=True, capture_output=True, env=cli.env)
    after = json.dumps([*restic, "backup", "{directory}"])
    assert cli.up("--no-pip", "--profile", profile(cli, f"  after: {after}")).code == 0
    upload(cli)
    done = cli.run("backup", "create")
    assert done.code == 0, done.err
    back = ["restore", "latest", "--target", f"{tmp_path}/back"]
    subprocess.run([*restic, *back], check=True, capture_output=True, env=cli.env)
    verified = cli.run("backup", "verify", "--directory", f"{tmp_path}/back{tmp_path}/backups", "--json")
    assert (verified.code, verified.data.get("files")) == (0, 1), verified.out
    shutil.rmtree(tmp_path / "repository")
    failed = cli.run("backup", "create")
    assert (failed.code, "backup.after: " in failed.err, "is complete" in failed.err) == (9, True, True), failed.err
