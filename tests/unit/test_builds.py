"""What ``deployer build`` changes in a build file, and how it reads the arguments of a builder. And its relay."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.builds import arguments, compose
from deployer.builds.builders import BUILDKIT, CLASSIC, NERDCTL, PODMAN, Builder
from deployer.builds.dockerfile import Secret, directives, with_arguments, with_secrets
from deployer.builds.given import Given, passed
from deployer.container_files import escaped
from deployer.errors import ConflictError
from deployer.host.relay import device_of, relaying

PIP = Secret(id="pip", target="/etc/pip.conf")
FLAG = PIP.flag


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM a\nRUN pip install b\n", f"FROM a\nRUN {FLAG} pip install b\n"),
        ("FROM a\nrun pip install b", f"FROM a\nrun {FLAG} pip install b"),
        ('FROM a\n  RUN\t["pip", "b"]\n', f'FROM a\n  RUN {FLAG}\t["pip", "b"]\n'),
        ("FROM a\r\nRUN b\r\n", f"FROM a\r\nRUN {FLAG} b\r\n"),
        # continued lines, with comments and empty lines between them, and a RUN that is none
        ("FROM a\nRUN b \\\n# RUN c\n\n  RUN d\nRUN e\n",
         f"FROM a\nRUN {FLAG} b \\\n# RUN c\n\n  RUN d\nRUN {FLAG} e\n"),
        ("# escape=`\nFROM a\nRUN b `\n  RUN c\nRUN d \\\nRUN e\n",
         f"# escape=`\nFROM a\nRUN {FLAG} b `\n  RUN c\nRUN {FLAG} d \\\nRUN {FLAG} e\n"),
        # a directive counts at the top only
        ("FROM a\n# escape=`\nRUN b `\nRUN c\n", f"FROM a\n# escape=`\nRUN {FLAG} b `\nRUN {FLAG} c\n"),
        # here-documents
        ("FROM a\nRUN <<EOF\nRUN b\nEOF\nRUN c\n", f"FROM a\nRUN {FLAG} <<EOF\nRUN b\nEOF\nRUN {FLAG} c\n"),
        ("FROM a\nCOPY <<-'A' <<B /x/\nRUN b\n\tA\nRUN c\nB\nRUN d\n",
         f"FROM a\nCOPY <<-'A' <<B /x/\nRUN b\n\tA\nRUN c\nB\nRUN {FLAG} d\n"),
        # what the file mounts there itself
        ("FROM a\nRUN --mount=type=bind,src=p,dst=/etc/pip.conf b\n",) * 2,
        ("FROM a\nRUN --mount=type=cache,target=/root/.cache b\n",
         f"FROM a\nRUN {FLAG} --mount=type=cache,target=/root/.cache b\n"),
        ("FROM a\nRUN --mount=type=secret,id=x,env=/etc/pip.conf b\n",) * 2,
        ("FROM a\nONBUILD RUN b\nENV RUN=1\nLABEL x=RUN\n",) * 2,
    ],
)  # fmt: skip
def test_each_step_gets_the_secret(before: str, after: str) -> None:
    assert with_secrets(before, [PIP]) == after


def test_a_secret_may_be_a_variable() -> None:
    secret = Secret(id="x", variable="HTTPS_PROXY")
    flag = "--mount=type=secret,id=x,env=HTTPS_PROXY,required=true"
    assert with_secrets("FROM a\nRUN b\n", [secret]) == f"FROM a\nRUN {flag} b\n"
    assert with_secrets(f"FROM a\nRUN {flag} b\n", [secret]) == f"FROM a\nRUN {flag} b\n"


def test_the_directives_of_a_file() -> None:
    top = "# syntax=docker/dockerfile:1\n#escape=`\n"
    assert directives(f"{top}# a comment\n# check=skip=all\nFROM a\n") == top
    assert directives("FROM a\n# syntax=b\n") == ""


GIVEN = Given(
    files={PIP: b"[global]"}, settings={"SSL_CERT_FILE": "/etc/x"}, proxies={"HTTPS_PROXY": "http://deployer:word@x"}
)


@pytest.mark.parametrize(
    ("builder", "secrets", "arguments", "proxies", "options"),
    [
        (CLASSIC, [], ["SSL_CERT_FILE"], ["HTTPS_PROXY"],
         ["--build-arg=SSL_CERT_FILE=/etc/x", "--build-arg=HTTPS_PROXY"]),
        (BUILDKIT, ["pip"], ["SSL_CERT_FILE"], ["HTTPS_PROXY"],
         ["--secret=id=pip,src=/d/pip", "--build-arg=SSL_CERT_FILE=/etc/x", "--build-arg=HTTPS_PROXY"]),
        (PODMAN, ["pip"], ["SSL_CERT_FILE"], ["HTTPS_PROXY"],
         ["--secret=id=pip,src=/d/pip", "--build-arg=SSL_CERT_FILE=/etc/x"]),
        (replace(NERDCTL, variables=True), ["pip", "deployer-SSL_CERT_FILE", "deployer-HTTPS_PROXY"], [], [],
         [f"--secret=id={name},src=/d/{name}" for name in ("pip", "deployer-SSL_CERT_FILE", "deployer-HTTPS_PROXY")]),
    ],
    ids=["classic", "buildkit", "podman", "variables"],
)  # fmt: skip
def test_how_each_builder_gives_it(
    builder: Builder, secrets: list[str], arguments: list[str], proxies: list[str], options: list[str]
) -> None:
    """The password is a word of no command line, and of no build file."""
    made = passed(GIVEN, "FROM a\nRUN b\n", builder)
    assert (list(made.secrets), list(made.arguments), list(made.proxies)) == (secrets, arguments, proxies)
    assert list(made.options(Path("/d"), inherits=builder.inherits)) == options
    assert "word" not in made.text + " ".join(options) + repr(made)
    assert ("ARG SSL_CERT_FILE" in made.text) is bool(arguments)
    assert "ARG HTTPS_PROXY" not in made.text  # each builder has it by itself


# Compose files


def test_the_options_before_the_command_of_a_composer() -> None:
    words = ["--no-cache", "-f", "a.yaml", "--profile=x", "web", "-p", "name", "--build-arg", "A=b"]
    assert compose.split(words) == (
        ["-f", "a.yaml", "--profile=x", "-p", "name"],
        ["--no-cache", "web", "--build-arg", "A=b"],
    )


DOCUMENT = {
    "name": "app",
    "services": {
        "web": {
            "image": "web:1",
            "environment": {"A": "b"},
            "build": {"context": "/c", "dockerfile": "D", "args": ["WHO=a$b", "NONE"], "secrets": ["own"]},
        },
        "worker": {"build": "/w"},
        "inline": {"build": {"context": "/c", "dockerfile_inline": "FROM a\nRUN echo $HOME\n", "network": "host"}},
        "far": {"build": {"context": "https://example.com/x.git"}},
        "database": {"image": "db"},
    },
    "secrets": {"own": {"file": "/s"}, "unused": {"file": "/u"}},
}


def test_the_builds_of_a_compose_file() -> None:
    web, worker, inline, far = compose.builds(DOCUMENT)
    assert (web.path, web.given, web.is_here) == (Path("/c/D"), {"WHO", "NONE"}, True)
    assert (worker.path, worker.context, worker.given) == (None, "/w", set())
    assert (inline.inline.count("\n"), inline.network, inline.is_here) == (2, "host", True)
    assert not far.is_here


def test_a_compose_file_of_builds_with_the_index() -> None:
    made = passed(GIVEN, "FROM a\nRUN echo $HOME\n", BUILDKIT)
    changes = {
        name: compose.Change(passed=made, file=file, secrets={"pip": f"/t/{name}/pip"}, network="host", inherits=False)
        for name, file in (("web", "/t/web/D"), ("inline", "/t/inline/Dockerfile"))
    }
    changed = compose.changed(DOCUMENT, changes)
    assert set(changed["services"]) == {"web", "worker", "inline", "far"}
    proxies = {"SSL_CERT_FILE": "/etc/x", "HTTPS_PROXY": "http://deployer:word@x"}
    assert changed["services"]["web"] == {
        "image": "web:1",
        "build": {
            "context": "/c",
            "dockerfile": "/t/web/D",
            "network": "host",
            "args": {"WHO": "a$$b", "NONE": None, **proxies},
            "secrets": ["own", {"source": "web-pip", "target": "pip"}],
        },
    }
    inline = changed["services"]["inline"]["build"]
    assert inline["dockerfile"] == "/t/inline/Dockerfile" and "dockerfile_inline" not in inline
    assert changed["services"]["worker"] == {"build": {"context": "/w"}}
    assert changed["secrets"] == {
        "web-pip": {"file": "/t/web/pip"},
        "inline-pip": {"file": "/t/inline/pip"},
        "own": {"file": "/s"},
    }


@given(st.text(alphabet="a$b"))
def test_dollar_signs_of_a_compose_file(text: str) -> None:
    value = {"a": [text, {"b": text}], "c": 1, "d": None}
    assert compose.plain(escaped(value)) == value


def test_each_stage_declares_the_arguments() -> None:
    text = "ARG V=1\nFROM a AS b\nRUN c\nFROM \\\n  d"
    assert with_arguments(text, ["X", "Y"]) == "ARG V=1\nFROM a AS b\nARG X\nARG Y\nRUN c\nFROM \\\n  d\nARG X\nARG Y\n"


@given(st.text(alphabet="RUN FOMCPY#\\\n\r\t<EAB'-`=escape\"", max_size=80))
def test_nothing_else_changes(text: str) -> None:
    assert with_secrets(text, [PIP]).replace(f" {FLAG}", "") == text
    assert with_secrets(text, []) == text


@pytest.mark.parametrize(
    ("words", "file", "context", "network", "kept"),
    [
        (["."], "", ".", "", ["."]),
        (["-t", "a", "."], "", ".", "", ["-t", "a", "."]),
        ([".", "-t", "a"], "", ".", "", [".", "-t", "a"]),
        (["--no-cache", ".", "--pull"], "", ".", "", ["--no-cache", ".", "--pull"]),
        (["-f", "x/D", "--tag=a", "c"], "x/D", "c", "", ["--tag=a", "c"]),
        (["-fD", "c"], "D", "c", "", ["c"]),
        (["--file=D", "c", "--network=host"], "D", "c", "host", ["c", "--network=host"]),
        (["--network", "none", "--", "-c"], "", "-c", "none", ["--network", "none", "--", "-c"]),
        (["-"], "", "-", "", ["-"]),
        (["-q"], "", "", "", ["-q"]),
        (["-t"], "", "", "", ["-t"]),
    ],
)
def test_arguments(words: list[str], file: str, context: str, network: str, kept: list[str]) -> None:
    read = arguments.read(words)
    assert (read.file, read.context, read.network, list(read.words)) == (file, context, network, kept)


def test_names_of_build_arguments() -> None:
    words = ["--build-arg", "A=b", "--build-arg=HTTPS_PROXY", "--label", "C=d", "."]
    assert arguments.read(words).given == {"A", "HTTPS_PROXY"}


# The relay


def test_a_relay_passes_both_ways_and_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper() * 100_000)

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        with relaying("127.0.0.2", "lo", port=port, to=("127.0.0.1", port)) as relayed:
            assert relayed == port
            with socket.create_connection(("127.0.0.2", relayed)) as client:
                client.sendall(b"abc")
                client.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == b"ABC" * 100_000
        thread.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", relayed))


def test_a_port_that_is_taken_is_replaced() -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        taken = other.getsockname()[1]
        with relaying("127.0.0.2", "lo", port=taken, to=("127.0.0.1", 9)) as port:
            assert port != taken


def test_no_such_device() -> None:
    with pytest.raises(ConflictError, match="on nowhere0"), relaying("127.0.0.1", "nowhere0", port=0, to=("", 1)):
        pass


def test_the_device_of_an_address() -> None:
    assert device_of("127.0.0.1") == "lo"
    assert device_of("192.0.2.77") == ""
