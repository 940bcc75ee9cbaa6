"""Backups that are copied to an SFTP server and to an S3 server, and brought back on another machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from tests.backup_places import Place, s3, sftp
from tests.integration.cli import Cli
from tests.upstream import make_wheel

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed (Debian: apt install restic)"),
]
PLACES = {"sftp": sftp, "s3": s3}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    home = tmp_path_factory.mktemp("here")
    key = pyrage.x25519.Identity.generate()
    (home / "key").write_text(f"{key}\n")
    (home / "recipient").write_text(str(key.to_public()))
    (home / "password").write_text("of the repository\n")
    made = Cli(home=home, engine="process", upstream="http://127.0.0.1:9/simple/")
    up = made.up("--no-pip")
    assert up.code == 0, up.err
    upload(made, "first")
    yield made
    made.clean()


def upload(cli: Cli, name: str) -> None:
    wheel = make_wheel(name, "1.0")
    (cli.home / wheel.filename).write_bytes(wheel.content)
    done = cli.run("package", "upload", "--index", "root/dev", str(cli.home / wheel.filename))
    assert done.code == 0, done.err


def files(directory: Path) -> dict[str, bytes]:
    """What a backup is made of."""
    found = (path for part in ("blobs", "backups") for path in (directory / part).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, cli: Cli, tmp_path: Path) -> Iterator[tuple[Place, Path]]:
    """A place, and the directory of this deployment's backups that are copied there."""
    with PLACES[request.param](tmp_path / "there") as made:
        directory = tmp_path / "backups"
        settings = {
            "directory": str(directory),
            "keep": {"last": 1, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0},
            "recipient": (cli.home / "recipient").read_text(),
            "remote": {
                "repository": made.repository,
                "password": f"file:{cli.home}/password",
                "options": list(made.options),
            },
        }
        (cli.home / "profile.yaml").write_text(json.dumps({"extends": "default", "backup": settings}))
        up = cli.up("--no-pip", "--profile", str(cli.home / "profile.yaml"), "--replace")
        assert up.code == 0, up.err
        yield made, directory


def test_to_the_place_and_back(cli: Cli, place: tuple[Place, Path], tmp_path: Path) -> None:
    there, directory = place
    (tmp_path / "other").mkdir()
    other = replace(cli, home=tmp_path / "other", name=f"{cli.name}-2", port=cli.port + 1, shared=None)
    words = ["--remote", there.repository, "--remote-password", f"file:{cli.home}/password"]
    words += [word for option in there.options for word in ("--remote-option", option)]
    fetched = tmp_path / "other/backups"
    fetch = ("backup", "fetch", *words, "--directory", str(fetched))

    absent = other.run(*fetch, env=there.env)
    assert (absent.code, absent.err.count("\n") < 9) == (9, True), absent.err
    for _ in range(2):
        made = cli.run("backup", "create", "--json", env=there.env)
        assert made.code == 0, made.out + made.err
    wrong = other.run(*fetch, "--remote-password", "env:WRONG", env={**there.env, "WRONG": "another"})
    assert (wrong.code, fetched.exists()) == (9, False), wrong.err

    got = other.run(*fetch, "--json", env=there.env)
    assert got.code == 0, got.out + got.err
    assert len(got.data["backups"]) == 2
    assert files(fetched) == files(directory)
    assert not any(path.stat().st_mode & 0o077 for path in fetched.rglob("*"))
    assert other.run(*fetch, env=there.env).code == 5

    password = cli.run("secret", "show", "root").out
    try:
        data = ("--data", str(other.data), "--port", str(other.port), "--no-pip")
        restored = other.run(
            "backup", "restore", "--directory", str(fetched), "--identity", str(cli.home / "key"), *data
        )
        assert restored.code == 0, restored.err
        assert other.run("package", "list", "--index", "root/dev", "--json").data["projects"] == ["first"]
        assert other.run("secret", "show", "root").out == password
    finally:
        other.clean()

    pruned = cli.run("backup", "prune", env=there.env)
    assert pruned.code == 0, pruned.err
    shutil.rmtree(fetched)
    assert len(other.run(*fetch, "--json", env=there.env).data["backups"]) == 2  # as of the last copy
    secrets = (b"of the repository", password.strip().encode(), b"also-of-the-test")
    assert not any(secret in path.read_bytes() for secret in secrets for path in directory.rglob("*") if path.is_file())


def test_a_place_that_does_not_answer_loses_nothing_here(cli: Cli, tmp_path: Path) -> None:
    remote = {"repository": "s3:http://127.0.0.1:9/backups", "password": f"file:{cli.home}/none", "options": []}
    settings = {"directory": str(tmp_path / "backups"), "remote": remote}
    (cli.home / "profile.yaml").write_text(json.dumps({"extends": "default", "backup": settings}))
    assert cli.up("--no-pip", "--profile", str(cli.home / "profile.yaml"), "--replace").code == 0
    failed = cli.run("backup", "create")
    assert (failed.code, "is complete in" in failed.err, f"{cli.home}/none" in failed.err) == (9, True, True), (
        failed.err
    )
    (cli.home / "none").write_text("of the repository\n")
    missing = cli.run("backup", "create", env={"PATH": str(tmp_path)})
    assert (missing.code, "restic is not installed" in missing.err) == (9, True), missing.err
    assert len(cli.run("backup", "list", "--json").data["backups"]) == 2


def test_a_copy_and_a_fetch_that_are_killed_are_completed_by_the_next(cli: Cli, tmp_path: Path) -> None:
    repository, directory = tmp_path / "repository", tmp_path / "backups"
    (tmp_path / "password").write_text("of the repository\n")
    remote = {"repository": str(repository), "password": f"file:{tmp_path}/password", "options": []}
    settings = {"directory": str(directory), "remote": remote}
    (cli.home / "profile.yaml").write_text(json.dumps({"extends": "default", "backup": settings}))
    assert cli.up("--no-pip", "--profile", str(cli.home / "profile.yaml"), "--replace").code == 0
    assert cli.run("backup", "create").code == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/restic").write_text(f'#!/bin/sh\n{shutil.which("restic")} "$@" & sleep 0.2; kill -9 $!; wait $!\n')
    (tmp_path / "bin/restic").chmod(0o755)
    deadly = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    fetched = tmp_path / "fetched"
    words = ("backup", "fetch", "--directory", str(fetched))
    for _ in range(2):
        killed = cli.run("backup", "create", env=deadly)
        assert (killed.code, "is complete in" in killed.err) == (9, True), killed.err
        assert (cli.run(*words, env=deadly).code, fetched.exists()) == (9, False)
    assert cli.run("backup", "create").code == 0
    assert cli.run("backup", "prune", "--keep-last", "4").code == 0
    assert cli.run(*words).code == 0
    assert files(fetched) == files(directory)
    assert not list(tmp_path.glob("fetched.*"))
