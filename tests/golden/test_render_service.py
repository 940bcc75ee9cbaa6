"""Files for systemd: what they say, and that no value in them is anything but a value."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from deployer.render import quadlet, run_argv, systemd_word, unit
from deployer.spec import EngineName, NetworkMode
from tests.golden.test_render import SPECS

ODD = 'it\'s 100% of $HOME \\ {{ 7 * 7 }} "x"'
QUADLET = shutil.which("quadlet", path="/usr/libexec/podman:/usr/lib/podman")


def made(engine: EngineName = EngineName.PODMAN, *, scope: str = "system", word: str = "/usr/bin/python3") -> str:
    words = ("HOME=/root", word, "-m", "deployer.cli")
    return unit(
        "devpi", engine, scope=scope, start=(*words, "start"), stop=(*words, "stop"), start_timeout=timedelta(minutes=3)
    )


def words_of(line: str) -> list[str]:
    """The words of a command line in a unit, by another reading of the same rules: C escapes are the shell's here, and
    what is doubled is single."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("engine", EngineName)
def test_unit(engine: EngineName, scope: str, snapshot: SnapshotAssertion) -> None:
    assert made(engine, scope=scope) == snapshot


@pytest.mark.parametrize("case", SPECS)
def test_quadlet(case: str, snapshot: SnapshotAssertion) -> None:
    assert quadlet(SPECS[case]) == snapshot


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" %$\"'\\;"), min_size=1))
def test_a_value_is_one_word_and_nothing_is_expanded(value: str) -> None:
    line = next(line for line in made(word=value).splitlines() if line.startswith("ExecStart="))
    assert words_of(line.removeprefix("ExecStart="))[2] == value


@pytest.mark.parametrize("text", ["a\nExecStart=/bin/evil", "a\0b", "\r", "\u2028"])
def test_no_value_ends_its_line(text: str) -> None:
    assert systemd_word(text).isprintable()
    assert len(made(word=text).splitlines()) == len(made().splitlines())


def test_a_quadlet_runs_what_up_runs() -> None:
    spec = replace(SPECS["everything"], network=NetworkMode.HOST, ports=())
    lines = quadlet(spec).splitlines()
    options = [words_of(line.partition("=")[2])[0] for line in lines if line.startswith("PodmanArgs=")]
    argv = run_argv(spec, EngineName.PODMAN)
    left_out = set(argv[2 : argv.index("--")]) - set(options)
    assert left_out == {"--detach", "--name=devpi", "--restart=on-failure:5"}
    assert "Restart=on-failure" in lines


@pytest.mark.parametrize("word", ["/usr/bin/python3", ODD])
def test_systemd_takes_it(word: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "deployer-devpi.service"
    path.write_text(made(EngineName.PROCESS, word=word))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, str(path) in done.stderr) == (0, False), done.stderr


@pytest.mark.skipif(QUADLET is None, reason="podman's generator for Quadlet (4.4 and newer) is not installed")
def test_podman_takes_it(tmp_path: Path) -> None:
    (tmp_path / "devpi.container").write_text(quadlet(SPECS["everything"]))
    done = subprocess.run(
        [str(QUADLET), "--dryrun", "--user"],
        env={"QUADLET_UNIT_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ExecStart=" in done.stdout
