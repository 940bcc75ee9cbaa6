"""A deployment that systemd starts: the unit is ours, exact, and takes nothing for granted. No systemd runs here as the
first process, so what it would do is done by hand: its commands with an empty environment."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli, Done

pytestmark = pytest.mark.server


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    need("process")
    made = Cli(home=tmp_path, engine="process", upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture
def systemctl(cli: Cli) -> Path:
    """Stands for systemd: writes down what it is told, and refuses when there is a file ``refuse``."""
    path = cli.home / "bin" / "systemctl"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\necho "$*" >>told\n'
        '[ ! -e refuse ] || { echo "Failed to connect to bus" >&2; exit 1; }\n'
    )
    path.chmod(0o755)
    return path


def service(cli: Cli, systemctl: Path, *words: str) -> Done:
    env = {"PATH": f"{systemctl.parent}:/usr/bin:/bin"}
    return cli.run("install-service", "--scope", "user", *words, env=env)


def path_of(cli: Cli) -> Path:
    return cli.home / ".config/systemd/user" / f"deployer-{cli.name}.service"


def as_systemd(unit: str, key: str) -> subprocess.CompletedProcess[str]:
    """Do what the unit says under ``key``."""
    line = next(line for line in unit.splitlines() if line.startswith(f"{key}="))
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.partition("=")[2])]
    return subprocess.run(words, env={}, capture_output=True, text=True, timeout=240, check=False)


def state(cli: Cli) -> str:
    return str(cli.run("status", "--json", "--engine", cli.engine).data["state"])


def test_a_unit_starts_and_stops_what_up_made(cli: Cli, systemctl: Path) -> None:
    assert cli.up("--no-pip").code == 0
    assert service(cli, systemctl).code == 0
    unit = path_of(cli).read_text()
    assert (systemctl.parent / "told").read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable {path_of(cli).name}",
    ]
    uuid = cli.run("status", "--json").data["server_uuid"]
    for _ in range(2):
        stopped = as_systemd(unit, "ExecStop")
        assert (stopped.returncode, state(cli)) == (0, "stopped"), stopped.stderr
    for _ in range(2):
        started = as_systemd(unit, "ExecStart")
        assert (started.returncode, state(cli)) == (0, "running"), started.stderr
    assert cli.run("status", "--json").data["server_uuid"] == uuid


def test_it_is_made_once_and_taken_away_whole(cli: Cli, systemctl: Path) -> None:
    assert cli.up("--no-pip").code == 0
    assert service(cli, systemctl, "--print").out.startswith("# Written by deployer")
    assert not path_of(cli).exists()
    assert service(cli, systemctl).code == 0
    again = service(cli, systemctl)
    assert (again.code, "unchanged" in again.err) == (0, True)
    assert service(cli, systemctl, "--undo").code == 0
    assert not path_of(cli).exists()
    assert service(cli, systemctl).code == 0
    down = cli.run("down", "--engine", cli.engine)
    assert f"still starts it at boot: deployer install-service --name {cli.name} --scope user --undo" in down.err
    assert service(cli, systemctl, "--undo").code == 0
    told = (systemctl.parent / "told").read_text().splitlines()
    assert told[2:4] == [f"--user disable {path_of(cli).name}", "--user daemon-reload"]
    assert told[6:] == told[2:4]
    assert "nothing to do" in service(cli, systemctl, "--undo").err


def test_a_unit_that_is_not_ours_is_left_alone(cli: Cli, systemctl: Path) -> None:
    assert cli.up("--no-pip").code == 0
    path_of(cli).parent.mkdir(parents=True)
    path_of(cli).write_text("[Service]\nExecStart=/bin/true\n")
    for words in ((), ("--undo",)):
        done = service(cli, systemctl, *words)
        assert (done.code, "was not written by deployer" in done.err) == (5, True)
    assert path_of(cli).read_text() == "[Service]\nExecStart=/bin/true\n"
    assert not (systemctl.parent / "told").exists()


def test_a_systemd_that_refuses_leaves_nothing_behind(cli: Cli, systemctl: Path) -> None:
    assert cli.up("--no-pip").code == 0
    (systemctl.parent / "refuse").touch()
    done = service(cli, systemctl)
    assert (done.code, "Failed to connect to bus" in done.err) == (4, True)
    assert not path_of(cli).exists()
    systemctl.unlink()
    missing = cli.run("install-service", "--scope", "user", env={"PATH": str(systemctl.parent)})
    assert (missing.code, "--print" in missing.err) == (4, True)


def test_what_is_not_there_is_not_installed(cli: Cli, systemctl: Path) -> None:
    assert service(cli, systemctl).code == 5
    assert service(cli, systemctl, "--scope", "all").code == 2
    assert not path_of(cli).exists()


def test_a_timer_keeps_the_watched_files_warm(cli: Cli, systemctl: Path) -> None:
    (cli.home / "requirements.txt").write_text("# nothing yet\n")
    profile = cli.home / "profile.yaml"
    profile.write_text("warm: [requirements.txt]\n")
    assert cli.up("--no-pip", "--profile", str(profile)).code == 0
    installed = service(cli, systemctl, "--json")
    timer = path_of(cli).with_name(f"deployer-{cli.name}-warm.timer")
    unit = timer.with_suffix(".service")
    assert (installed.code, installed.data["timers"]) == (0, [str(timer)])
    assert (systemctl.parent / "told").read_text().splitlines()[-1] == f"--user enable --now {timer.name}"
    assert "OnCalendar=daily" in timer.read_text()
    ran = as_systemd(unit.read_text(), "ExecStart")
    assert (ran.returncode, ran.stdout) == (0, "0 files cached, 0 fetched (0 B)\n"), ran.stderr
    assert service(cli, systemctl, "--undo").code == 0
    assert not any(path.exists() for path in (timer, unit, path_of(cli)))


def test_a_schedule_takes_backups_by_a_timer(cli: Cli, systemctl: Path) -> None:
    profile = cli.home / "profile.yaml"
    profile.write_text(f"extends: default\nbackup: {{directory: {cli.home}/backups, schedule: Mon *-*-* 02:00}}\n")
    assert cli.up("--no-pip", "--profile", str(profile)).code == 0
    done = service(cli, systemctl, "--json")
    timer = path_of(cli).with_name(f"deployer-{cli.name}-backup.timer")
    assert done.data["timers"] == [str(timer)]
    assert "OnCalendar=Mon *-*-* 02:00" in timer.read_text().splitlines()
    assert f"--user enable --now {timer.name}" in (systemctl.parent / "told").read_text().splitlines()
    taken = as_systemd(timer.with_suffix(".service").read_text(), "ExecStart")
    assert taken.returncode == 0, taken.stderr
    assert len(cli.run("backup", "list", "--json").data["backups"]) == 1
    assert service(cli, systemctl, "--undo").code == 0
    assert not list(timer.parent.iterdir())
    assert f"--user disable --now {timer.name}" in (systemctl.parent / "told").read_text().splitlines()
