"""Exec over Docker's API, against an engine that answers in one piece, slowly, or not to the end."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from deployer.engines.sdk_exec import execute
from deployer.errors import EngineUnreachable


def frame(number: int, payload: bytes) -> bytes:
    return bytes((number, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers the three calls of an exec; what it was sent is in ``received``."""

    frames: ClassVar[bytes] = b""
    received: ClassVar[list[bytes]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/start"):
            # One write: the frames arrive together with the headers.
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + self.frames)
            self.received.append(self.rfile.read())
            self.close_connection = True
        else:
            self.answer({"Id": "one"})

    def do_GET(self) -> None:
        self.answer({"ExitCode": 3})

    def answer(self, told: dict[str, object]) -> None:
        body = json.dumps(told).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        self.wfile.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        return


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def answering(path: Path, frames: bytes) -> Iterator[tuple[object, list[bytes]]]:
    import docker

    handler = type("Handler", (Engine,), {"frames": frames, "received": []})
    with Server(str(path), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = docker.APIClient(base_url=f"unix://{path}", version="1.41", timeout=30)
        try:
            yield client, handler.received
        finally:
            client.close()
            server.shutdown()


def test_output_that_arrives_with_the_headers_is_not_lost(tmp_path: Path) -> None:
    frames = frame(1, b"one ") + frame(2, b"no\n") + frame(1, b"two\n")
    with answering(tmp_path / "s", frames) as (api, received):
        done = execute(api, "devpi", ("cat",), stdin=b"given")  # type: ignore[arg-type]
    assert (done.returncode, done.stdout, done.stderr) == (3, "one two\n", "no\n")
    assert received == [b"given"]


@pytest.mark.parametrize("frames", [frame(1, b"whole")[:-1], b"\1\0\0"], ids=["payload", "header"])
def test_a_broken_frame_is_an_error(tmp_path: Path, frames: bytes) -> None:
    with answering(tmp_path / "s", frames) as (api, _), pytest.raises(EngineUnreachable, match="middle of a frame"):
        execute(api, "devpi", ("cat",), stdin=b"")  # type: ignore[arg-type]
