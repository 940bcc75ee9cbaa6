"""Run a command in a container over Docker's API, with standard input.

The API turns the HTTP connection into a two-way stream: we send raw bytes, the engine sends frames of stdout and
stderr (Docker Engine API, "Attach to a container"). The ``docker`` package opens that stream and does not send.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from deployer.errors import EngineUnreachable
from deployer.host.background import meanwhile
from deployer.spec import ExecResult

if TYPE_CHECKING:
    from docker import APIClient

_HEADER = struct.Struct(">BxxxL")
"""A frame's header: the number of the stream (1 stdout, 2 stderr), and the length of its payload in bytes."""
_STDOUT = 1


def execute(api: APIClient, container: str, argv: Sequence[str], *, stdin: bytes) -> ExecResult:
    """Run ``argv`` in the running ``container`` with ``stdin`` as its standard input.

    Raises what the ``docker`` package raises, OSError, and EngineUnreachable when the stream breaks off.
    """
    made = api.exec_create(container, list(argv), stdin=True)
    opened: Any = api.exec_start(made["Id"], socket=True)
    response = opened._response
    connection = getattr(opened, "_sock", opened)
    try:
        # A command may write before it has read all its input: neither side may wait for the other.
        sending = meanwhile(lambda: _send(connection, stdin))
        # The package hands out the socket below the buffer that read the HTTP headers. Frames that arrived together
        # with the headers are in that buffer.
        out, err = _output(response.raw._fp.fp)
        _end(connection)
        sending.result()
    finally:
        response.close()
    code = int(api.exec_inspect(made["Id"])["ExitCode"])
    return ExecResult(returncode=code, stdout=out.decode("utf-8", "replace"), stderr=err.decode("utf-8", "replace"))


def _send(connection: socket.socket, stdin: bytes) -> None:
    """Send all input, then end it. A command that ended before it read everything is no error."""
    try:
        connection.sendall(stdin)
        # SSLSocket.shutdown() would also end the decryption of what comes back.
        socket.socket.shutdown(connection, socket.SHUT_WR)
    except OSError:
        return


def _end(connection: socket.socket) -> None:
    """End what is still being sent: docker neither reads nor refuses the input of a command that has ended."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _output(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Read frames to the end of the stream: (stdout, stderr)."""
    out, err = bytearray(), bytearray()
    while header := _read(stream, _HEADER.size):
        number, length = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, -1)
        payload = _read(stream, length) if length >= 0 else b""
        if len(payload) != length:
            raise EngineUnreachable("docker ended its answer in the middle of a frame", hint="deployer doctor")
        (out if number == _STDOUT else err).extend(payload)
    return bytes(out), bytes(err)


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, less at the end. podman resets the connection when the command left input unread."""
    try:
        return stream.read(size)
    except ConnectionResetError:
        return b""
