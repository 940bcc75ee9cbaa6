"""What ``deployer build`` changes in a build file, and how it reads the arguments of a builder. And its relay."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.builds import arguments
from deployer.builds.dockerfile import Secret, with_arguments, with_secrets
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
        ("FROM a\nONBUILD RUN b\nENV RUN=1\nLABEL x=RUN\n",) * 2,
    ],
)  # fmt: skip
def test_each_step_gets_the_secret(before: str, after: str) -> None:
    assert with_secrets(before, [PIP]) == after


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
