"""Files for other tools: Compose, Docker, dev containers, BuildKit. Each value comes back as it went in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from deployer.commands.render import FORMATS
from deployer.container_files import SERVICE, buildkitd, commented, compose, devcontainer, docker_word, dockerfile
from tests.engines import BASE, REQUIRED, need
from tests.golden.test_render import BRIDGE, SPECS

VARIABLES = {"PIP_INDEX_URL": "http://127.0.0.1:3141/root/dev/+simple/", "UV_HTTP_TIMEOUT": "60"}
ODD = 'it\'s 100% of $HOME ${HOME} \\ {{ 7 * 7 }} "x" # no: comment'


def service(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text)["services"][SERVICE])


@pytest.mark.parametrize("case", SPECS)
def test_compose(case: str, snapshot: SnapshotAssertion) -> None:
    assert compose(SPECS[case]) == snapshot


def test_clients(snapshot: SnapshotAssertion) -> None:
    assert dockerfile("python:3.13", VARIABLES) == snapshot
    assert devcontainer("devpi", "python:3.13", VARIABLES, host=True) == snapshot
    assert devcontainer("devpi", "python:3.13", VARIABLES, host=False) == snapshot
    assert buildkitd(host=True) == snapshot
    assert buildkitd(host=False) == snapshot


@given(st.text(min_size=1))
def test_compose_takes_no_value_for_a_variable(value: str) -> None:
    told = service(compose(replace(BRIDGE, env=(("ODD", value),), command=("serve", value))))
    for found in (told["environment"]["ODD"], told["command"][1]):
        assert "$" not in found.replace("$$", "")
        assert found.replace("$$", "$") == value


@given(st.text())
def test_a_dev_container_gets_every_value_or_none(value: str) -> None:
    if "${" in value:
        with pytest.raises(ValueError, match="can't hold"):
            devcontainer("devpi", "python:3", {"ODD": value}, host=False)
    else:
        assert json.loads(devcontainer("devpi", "python:3", {"ODD": value}, host=False))["containerEnv"]["ODD"] == value


@given(st.text())
def test_no_value_ends_its_line_in_a_dockerfile(value: str) -> None:
    if value.isprintable():
        assert len(dockerfile("python:3", {"ODD": value}).splitlines()) == 2
    else:
        with pytest.raises(ValueError, match="control character"):
            docker_word(value)


def test_comments_end_where_they_end() -> None:
    assert yaml.safe_load(commented(("one\ntwo: 2", "three"), compose(BRIDGE))).keys() == {"services"}


@pytest.mark.parametrize("case", SPECS)
def test_the_schema_of_compose_accepts_it(case: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(compose(SPECS[case]))
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*words, str(tmp_path / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.nerdctl
def test_compose_reads_it(tmp_path: Path) -> None:
    """nerdctl has the parser of Compose itself."""
    need("nerdctl")
    spec = replace(SPECS["everything"], env=(("ODD", ODD),))
    (tmp_path / "compose.yaml").write_text(compose(spec))
    words = ["nerdctl", "compose", "--file", str(tmp_path / "compose.yaml"), "config"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = service(done.stdout)
    assert told["environment"]["ODD"].replace("$$", "$") == ODD
    assert told["volumes"][0]["source"] == spec.mounts[0].source
    assert told["ports"][0]["host_ip"] == "::1"


@pytest.mark.docker
def test_docker_builds_it(tmp_path: Path) -> None:
    need("docker")
    text = dockerfile(BASE, {**VARIABLES, "ODD": ODD})
    (tmp_path / "Dockerfile").write_text(text + 'RUN printf %s "$ODD" >/odd && printf %s "$PIP_INDEX_URL" >/url\n')
    tag = f"localhost/deployer-test-rendered:{os.getpid()}"
    built = subprocess.run(
        ["docker", "build", "-q", "-t", tag, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    try:
        words = ["docker", "run", "--rm", "--network=none", tag, "sh", "-c", "cat /odd; echo; cat /url; echo; env"]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[:2] == [ODD, VARIABLES["PIP_INDEX_URL"]]
        assert not any(line.startswith(("PIP_", "ODD=")) for line in lines[2:]), "the image keeps nothing"
    finally:
        subprocess.run(["docker", "image", "rm", "-f", tag], capture_output=True, check=False)


def test_buildkitd_reads_it(tmp_path: Path) -> None:
    assert tomllib.loads(buildkitd(host=True))["worker"]["oci"] == {"networkMode": "host"}
    program = shutil.which("buildkitd", path=f"{os.environ['PATH']}:{_beside_nerdctl()}")
    if program is None:
        (pytest.fail if "nerdctl" in REQUIRED else pytest.skip)("buildkitd is not installed")
    good = buildkitd(host=True)
    for text, reason in ((good, "no worker"), (good.replace('"host"', "7"), "failed to parse config")):
        (tmp_path / "buildkitd.toml").write_text(text)
        words = [program, "--config", str(tmp_path / "buildkitd.toml"), "--root", str(tmp_path / "root")]
        words += ["--addr", f"unix://{tmp_path}/socket", "--oci-worker=false", "--containerd-worker=false"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert reason in done.stderr


def _beside_nerdctl() -> str:
    """``.ci/nerdctl`` keeps the daemons out of PATH."""
    nerdctl = shutil.which("nerdctl")
    return str(Path(nerdctl).parent / "sbin") if nerdctl else ""


def test_the_page_names_every_format() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/render.md").read_text(encoding="utf-8")
    assert [form for form in FORMATS if f"--format {form} " not in page and f"`{form}`" not in page] == []
