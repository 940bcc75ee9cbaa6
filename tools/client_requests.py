"""Record what the real clients send to an index: ``python -m tools.client_requests [CLIENT=PROGRAM ...]``.

Each client gets packages of a server of its own, through a recorder that passes everything on. Without arguments the
clients of this environment are recorded; with arguments those that are named, as in ``poetry=/opt/poetry/bin/poetry``.
Of ``pip`` and ``pip-new`` the program is an interpreter. What was recorded earlier of other clients is kept.
The distributions are those of ``tests/client_requests.py``, so that the addresses are the same in the tests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.client_requests import DISTRIBUTIONS, RECORDED, UPLOADED, Sent
from tests.front import make_indexes
from tests.server_process import Server
from tests.upstream import Upstream

KEPT = ("PATH", "LANG")
WANTED = tuple(one.project for one in DISTRIBUTIONS)
BESIDE = Path(sys.executable).parent
SECRET = ("authorization", "x-devpi-auth")


@dataclass
class Recorder:
    """Passes requests on to ``port``, and keeps their first lines and headers as they came."""

    port: int
    sent: list[Sent] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[int]:
        """The port to send requests to."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                recorder.sent.append(_cleaned(self.command, self.path, self.headers.items()))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                onward = http.client.HTTPConnection("127.0.0.1", recorder.port, timeout=120)
                onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    onward.putheader(name, value)
                onward.endheaders(body or None)
                answer = onward.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                        self.send_header(name, value)
                length = answer.headers["Content-Length"] if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                onward.close()

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Requests are recorded, not printed."""

        return Handler


def _cleaned(method: str, target: str, headers: object) -> Sent:
    """A request without what differs between two runs, and without a password."""
    kept: list[tuple[str, str]] = []
    for name, value in headers:  # type: ignore[attr-defined]
        if name.lower() == "host":
            value = "127.0.0.1"
        if name.lower() in SECRET:
            value = "****"
        kept.append((name, re.sub(r"boundary=\S+", "boundary=x", value)))
    return Sent(method=method, target=target, headers=tuple(kept))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one client runs: ``room`` is its home and working directory."""

    room: Path
    url: str
    password: str

    @property
    def simple_url(self) -> str:
        return f"{self.url}/root/dev/+simple/"

    def run(self, *words: str, **env: str) -> str:
        """Standard output. Raises SystemExit."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        whole = {**kept, "HOME": str(self.room), "NO_COLOR": "1", "TMPDIR": str(self.room), **env}
        done = subprocess.run(words, env=whole, cwd=self.room, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def project(self, *more: str) -> None:
        """A project that needs the packages."""
        needs = ", ".join(f'"{name}"' for name in WANTED)
        lines = (
            "[project]",
            'name = "mine"',
            'version = "1"',
            'requires-python = ">=3.11"',
            f"dependencies = [{needs}]",
        )
        (self.room / "pyproject.toml").write_text("\n".join((*lines, *more)) + "\n")


def _pip(place: Place, program: str) -> None:
    quiet = ("--isolated", "--no-cache-dir", "--disable-pip-version-check", "--no-input")
    place.run(program, "-m", "pip", "download", *quiet, "--index-url", place.simple_url, "--dest", "wheels", *WANTED)


def _uv(place: Place, program: str) -> None:
    common = ("--no-cache", "--no-config", "--python", sys.executable, "--default-index", place.simple_url)
    place.run(program, "pip", "install", *common, "--target", "target", *WANTED)
    place.project()
    place.run(program, "lock", *common)
    place.run(program, "sync", *common)
    files = [str(place.room / one.filename) for one in UPLOADED]
    publish = (program, "publish", "--no-config", "--publish-url", f"{place.url}/root/dev/", *files)
    place.run(*publish, UV_PUBLISH_USERNAME="root", UV_PUBLISH_PASSWORD=place.password)


def _poetry(place: Place, program: str) -> None:
    source = ("[[tool.poetry.source]]", 'name = "ours"', f'url = "{place.simple_url}"', 'priority = "primary"')
    place.project("[tool.poetry]", "package-mode = false", *source)
    place.run(program, "lock", "--no-cache", "--no-interaction")
    place.run(program, "install", "--no-cache", "--no-interaction")


def _pdm(place: Place, program: str) -> None:
    source = (
        "[[tool.pdm.source]]",
        'name = "pypi"',
        f'url = "{place.simple_url}"',
        "[tool.pdm]",
        "distribution = false",
    )
    place.project(*source)
    place.run(program, "use", "-f", sys.executable)
    place.run(program, "install", "--no-self", PDM_CHECK_UPDATE="0")


def _pex(place: Place, program: str) -> None:
    words = ("--no-pypi", "--index-url", place.simple_url, "--pip-version", "vendored", "--pex-root", "root")
    wheels = [name for name in WANTED if name != "from-source"]  # it would need a build system from the index
    place.run(program, *wheels, *words, "--python", sys.executable, "--output-file", "made.pex")


def _twine(place: Place, program: str) -> None:
    files = [str(place.room / one.filename) for one in UPLOADED]
    words = (program, "upload", "--non-interactive", "--disable-progress-bar", "--repository-url")
    place.run(*words, f"{place.url}/root/dev/", *files, TWINE_USERNAME="root", TWINE_PASSWORD=place.password)


def _devpi(place: Place, program: str) -> None:
    for words in (
        ("use", place.url),
        ("login", "root", "--password", place.password),
        ("use", "root/dev"),
        ("upload", *(str(place.room / one.filename) for one in UPLOADED)),
        ("list", "uploaded"),
        ("remove", "-y", "uploaded"),
    ):
        place.run(program, words[0], "--clientdir", str(place.room / "devpi"), *words[1:])


@dataclass(frozen=True)
class Client:
    run: Callable[[Place, str], None]
    version: tuple[str, ...]
    own: str = ""  # the program in this environment


CLIENTS: Mapping[str, Client] = {
    "pip": Client(_pip, ("-m", "pip", "--version"), sys.executable),
    "pip-new": Client(_pip, ("-m", "pip", "--version")),
    "uv": Client(_uv, ("--version",), str(BESIDE / "uv")),
    "poetry": Client(_poetry, ("--version",)),
    "pdm": Client(_pdm, ("--version",)),
    "pex": Client(_pex, ("--version",)),
    "twine": Client(_twine, ("--version",), str(BESIDE / "twine")),
    "devpi-client": Client(_devpi, ("--version",), str(BESIDE / "devpi")),
}


def record(name: str, program: str) -> tuple[str, list[Sent]]:
    """The version of one client, and all that it sent, each request once."""
    client = CLIENTS[name]
    with TemporaryDirectory() as home, Upstream(list(DISTRIBUTIONS)) as upstream:
        server = Server(Path(home) / "server")
        room = Path(home) / "room"
        room.mkdir()
        for one in UPLOADED:
            (room / one.filename).write_bytes(one.content)
        try:
            server.start()
            make_indexes(server, upstream.simple_url)
            recorder = Recorder(server.port)
            with recorder.running() as port:
                place = Place(room=room, url=f"http://127.0.0.1:{port}", password=server.password)
                said = place.run(program, *client.version)
                client.run(place, program)
        finally:
            server.end()
    number = re.search(r"\d+(?:\.\d+)+", said)
    return number[0] if number else "", list(dict.fromkeys(recorder.sent))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.client_requests", description="Record what clients send.")
    parser.add_argument("programs", nargs="*", metavar="CLIENT=PROGRAM", help=f"of {', '.join(CLIENTS)}")
    named = dict(word.split("=", 1) for word in parser.parse_args().programs)
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    programs = named or {name: client.own for name, client in CLIENTS.items() if client.own}
    for name, program in programs.items():
        version, sent = record(name, program)
        known[name] = {"version": version, "requests": [one.json for one in sent]}
        print(f"{name} {version}: {len(sent)} requests")  # noqa: T201 - this is its output
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
