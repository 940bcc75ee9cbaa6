"""A server behind nginx with two indexes and an upstream, for the tests of the front."""

from __future__ import annotations

import gzip
import http.client
import os
import random
import shutil
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import REQUIRED
from tests.server_process import PATIENCE, Server, request

PIP = {
    "User-Agent": "pip/25.1",
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
}
UV = {
    "User-Agent": "uv/0.7.2",
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
}


def need_nginx() -> None:
    """Skip, or fail where it is required, without an nginx on this host."""
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        if "nginx" in REQUIRED:
            pytest.fail("nginx is required and not installed")
        pytest.skip("nginx is not installed")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.plain.decode()

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def ask(
    where: int | Path, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", body: bytes = b""
) -> Answer:
    """One request, exactly as given, to a port of this host or to the socket that devpi listens on behind nginx."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", where, timeout=PATIENCE) if isinstance(where, int) else _Unix(where)
    )
    try:
        connection.putrequest(method, path, skip_accept_encoding=True, skip_host=bool(headers and "Host" in headers))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        if vary := response.headers.get_all("Vary"):
            told["vary"] = ", ".join(vary)
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


def form(fields: Mapping[str, str], filename: str, content: bytes) -> tuple[dict[str, str], bytes]:
    """An upload as twine makes it: headers and body."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n'
    parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n")
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, b"".join(
        parts
    ) + f"--{boundary}--\r\n".encode()


def upload(server: Server, name: str, version: str, content: bytes, *, auth: Mapping[str, str]) -> str:
    """Upload a wheel to root/dev, as twine does; its name."""
    filename = f"{name}-{version}-py3-none-any.whl"
    fields = {":action": "file_upload", "name": name, "version": version, "filetype": "bdist_wheel"}
    headers, body = form(fields, filename, content)
    answer = ask(server.port, "/root/dev/", {**headers, **auth}, method="POST", body=body)
    assert answer.status == 200, answer.body
    return filename


def make_indexes(server: Server, mirror_url: str) -> dict[str, str]:
    """root/pypi, a mirror, and root/dev, a stage on it that takes uploads and deletes; the header of root."""
    auth = server.auth
    mirror = {"type": "mirror", "mirror_url": mirror_url, "volatile": True, "mirror_no_project_list": True}
    stage = {"type": "stage", "bases": ["root/pypi"], "volatile": True}
    for name, config in (("pypi", mirror), ("dev", stage)):
        assert request(server.port, "PUT", f"/root/{name}", body=config, headers=auth)[0] == 200
    return auth


def noise(count: int, *, seed: int) -> bytes:
    """So many bytes that no compression makes fewer."""
    return random.Random(seed).randbytes(count)
