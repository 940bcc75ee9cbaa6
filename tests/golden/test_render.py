"""What is printed is what is run: every value comes out of the template, a shell and a script as it went in."""

from __future__ import annotations

import csv
import shlex
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from deployer.render import Directory, environment, mount_csv, run_argv, run_script
from deployer.resources import templates_dir
from deployer.spec import ContainerSpec, EngineName, Limits, Mount, NetworkMode, Port, features

CONTAINERS = [name for name in EngineName if features(name).containers]
BRIDGE = ContainerSpec(
    name="devpi",
    image="localhost/deployer-devpi:1",
    command=("serve", "--serverdir", "/data"),
    labels=(("io.devpi.deployer.name", "devpi"),),
    mounts=(Mount(kind="bind", source="/srv/devpi", target="/data"),),
    tmpfs=("/tmp:rw,noexec,nosuid,nodev,size=64m",),
    ports=(Port(host_ip="127.0.0.1", host_port=3141, container_port=3141),),
    user="1000:1000",
    limits=Limits(memory="256m", pids=256, nofile=4096),
)
SPECS = {
    "bridge": BRIDGE,
    "host": replace(BRIDGE, network=NetworkMode.HOST, ports=()),
    "volume": replace(BRIDGE, mounts=(Mount(kind="volume", source="packages", target="/data"),), user=""),
    "everything": replace(
        BRIDGE,
        env=(("REQUESTS_CA_BUNDLE", "/etc/deployer/ca.pem"), ("ODD", "it's $HOME {{ 7 * 7 }}")),
        mounts=(
            Mount(kind="bind", source="/srv/with, comma", target="/data", relabel=True),
            Mount(kind="bind", source="/etc/ca.pem", target="/etc/deployer/ca.pem", read_only=True),
        ),
        ports=(Port(host_ip="::1", host_port=4000, container_port=3141),),
        limits=Limits(memory="1g", pids=10, nofile=99, cpus=1.5),
        restart="on-failure:5",
        stop_timeout=timedelta(seconds=33),
        read_only=False,
        log_max_size="",
    ),
}


@pytest.mark.parametrize("engine", CONTAINERS)
@pytest.mark.parametrize("case", SPECS)
def test_argv(engine: EngineName, case: str, snapshot: SnapshotAssertion) -> None:
    assert list(run_argv(SPECS[case], engine)) == snapshot


@pytest.mark.parametrize("engine", CONTAINERS)
def test_script(engine: EngineName, snapshot: SnapshotAssertion) -> None:
    directory = Directory(path=Path("/srv/devpi"), uid=1000, gid=1000)
    assert run_script(BRIDGE, engine, directories=(directory,), header=("One line.",)) == snapshot


def test_a_script_never_holds_two_commands_in_one_comment() -> None:
    script = run_script(BRIDGE, EngineName.DOCKER, header=("harmless\nrm -rf /",))
    assert [line for line in script.splitlines() if "rm -rf" in line] == ["# harmless rm -rf /"]


def test_templates_can_not_leave_a_value_unquoted() -> None:
    for path in templates_dir().rglob("*.j2"):
        text = path.read_text()
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape" not in text


def test_an_undefined_name_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        environment("sh").from_string("{{ nothing }}").render()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200) | st.sampled_from(
    [
        "",
        " ",
        "\n",
        "'",
        '"',
        "$(id)",
        "`id`",
        "{{ 7*7 }}",
        "{% raw %}",
        "\u202e",
        "x" * 10_000,
        "\\\n",
        "-v",
        "--",
        "*",
    ]
)


@given(texts)
@settings(deadline=None)
def test_any_value_comes_back_from_the_words(text: str) -> None:
    spec = replace(BRIDGE, env=(("A", text),), labels=(("l", text),), command=(text, text))
    for engine in CONTAINERS:
        words = run_argv(spec, engine)
        assert f"--env=A={text}" in words
        assert f"--label=l={text}" in words
        assert words[-2:] == (text, text)
        assert words.index("--") < words.index(spec.image)


@given(st.lists(texts, min_size=1, max_size=4))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_comes_back_from_a_real_shell(words: list[str]) -> None:
    script = run_script(replace(BRIDGE, command=tuple(words)), EngineName.DOCKER)
    # The engine is a function that prints its words.
    shown = subprocess.run(
        ["sh"], input=f"docker() {{ printf '%s\\0' \"$@\"; }}\n{script}".encode(), capture_output=True, check=True
    ).stdout
    assert (
        shown.decode().split("\0")[:-1] == list(run_argv(replace(BRIDGE, command=tuple(words)), EngineName.DOCKER))[1:]
    )


@given(texts)
def test_a_mount_comes_back_from_csv(source: str) -> None:
    import io

    text = mount_csv(Mount(kind="bind", source=source, target="/data"))
    assert next(csv.reader(io.StringIO(text, newline=""))) == ["type=bind", f"source={source}", "target=/data"]


def test_a_process_is_rendered_as_it_is_started() -> None:
    script = run_script(replace(BRIDGE, env=(("A", "b c"),)), EngineName.PROCESS)
    assert "export A='b c'" in script
    assert shlex.split(script.partition("exec ")[2].replace("\\\n", " "))[1:] == [
        "-P",
        "-m",
        "deployer.server",
        *BRIDGE.command,
    ]
