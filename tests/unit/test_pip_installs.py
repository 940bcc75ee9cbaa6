"""pip and uv install from the index that they were pointed at, and from nowhere else."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployer.clients import pip
from deployer.clients.client import ClientSettings
from deployer.clients.configure import undo
from deployer.clients.variables import variables
from tests.pip_host import Host


def wheel() -> bytes:
    rows = {
        "tiny_thing.py": b"answer = 42\n",
        "tiny_thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n",
        "tiny_thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tiny_thing-1.0.dist-info/RECORD"
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in rows.items()
    ]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in {**rows, record: "".join([*lines, f"{record},,\n"]).encode()}.items():
            archive.writestr(name, data)
    return stream.getvalue()


class Index(BaseHTTPRequestHandler):
    """One project with one wheel; whatever else is asked for is not there, and remembered."""

    content = wheel()

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.wfile.write(self.answer())

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> bytes:
        name = "tiny_thing-1.0-py3-none-any.whl"
        pages = {
            "/root/dev/+simple/tiny-thing/": (
                "text/html",
                f'<a href="/f/{name}#sha256={hashlib.sha256(self.content).hexdigest()}">{name}</a>'.encode(),
            ),
            f"/f/{name}": ("application/octet-stream", self.content),
        }
        kind, body = pages.get(self.path, ("text/plain", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[tuple[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/root/dev/+simple/", server.seen  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def download(host: Host, *command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=host.home)


PIP = (
    sys.executable,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-cache-dir",
    "download",
    "--no-deps",
    "tiny-thing",
)


def test_pip_installs_through_the_file(host: Host, index: tuple[str, list[str]]) -> None:
    url, seen = index
    settings = ClientSettings(index_url=url, timeout=33)
    change = host.configure(settings)
    assert "trusted" not in change.text
    done = download(host, *PIP, env=host.env)
    assert done.returncode == 0, done.stderr
    assert "trusted" not in done.stderr + done.stdout
    assert (host.home / "tiny_thing-1.0-py3-none-any.whl").read_bytes() == Index.content
    assert seen == ["/root/dev/+simple/tiny-thing/", "/f/tiny_thing-1.0-py3-none-any.whl"]
    _, found, timeout, _, _ = ast.literal_eval(host.ask().stdout)
    assert (found, timeout) == (url, 33.0)
    undo(pip.Pip(), account=host.account)
    assert ast.literal_eval(host.ask().stdout)[1] != url


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_one_command_with_the_index_and_no_file_touched(host: Host, index: tuple[str, list[str]], tool: str) -> None:
    url, seen = index
    host.write("user", "[global]\nindex-url = http://127.0.0.1:9/\ntimeout = 1\n")
    before = sorted(host.home.rglob("*"))
    # What is set already must not win.
    env = host.env | {
        "PIP_DEFAULT_TIMEOUT": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "UV_INDEX_URL": "http://127.0.0.1:9/",
    }
    env |= variables(ClientSettings(index_url=url, timeout=33)) | {"UV_NO_CACHE": "1"}
    if tool == "pip":
        done = download(host, *PIP, "--dest", str(host.xdg), env=env)
        host.env = env
        assert ast.literal_eval(host.ask().stdout)[2] == 33.0
    else:
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if uv is None:
            pytest.skip("no uv")
        done = download(
            host,
            uv,
            "pip",
            "install",
            "--python",
            sys.executable,
            "--target",
            str(host.xdg / "t"),
            "tiny-thing",
            env=env,
        )
    assert done.returncode == 0, done.stderr
    assert "/f/tiny_thing-1.0-py3-none-any.whl" in seen
    assert sorted(host.home.rglob("*")) == before


def test_a_plain_http_host_needs_to_be_trusted(host: Host, index: tuple[str, list[str]]) -> None:
    """Under a name that pip does not take for this host, the same server is refused, until it is trusted."""
    url, seen = index
    proxy = url.split("/root")[0]
    far = "http://devpi.example.com:3141/root/dev/+simple/"
    env = host.env = host.env | {"HTTP_PROXY": proxy, "http_proxy": proxy}
    host.write("user", f"[global]\nindex-url = {far}\n")
    done = download(host, *PIP, env=env)
    assert done.returncode != 0 and "not a trusted or secure host" in done.stderr + done.stdout
    assert seen == []
    change = host.configure(ClientSettings(index_url=far, timeout=5))
    assert "trusted-host = devpi.example.com:3141" in change.text and "https" in change.warnings[0]
    download(host, *PIP, env=env)
    assert seen == [f"{far}tiny-thing/"]
