"""A machine on which the clients' default index is an imitation of it, with TLS, under its own name.

Everything is in namespaces: network, host names, processes. Clients need no setting to find that index, and can't
reach any other. ``FILES`` is where its files are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deployer.server.devpi.installed import default_mirror_url
from tests.authority import Authority
from tests.engines import REQUIRED
from tests.integration.cli import Cli
from tests.network_lab import _inside
from tests.pages import file_of, json_page
from tests.upstream import Answer, Distribution, Upstream, make_sdist, make_wheel

INDEX_URL = default_mirror_url() or ""
INDEX, FILES, OTHER = urlsplit(INDEX_URL).hostname or "", "files.example.com", "other.example.com"
PROXY = ("127.0.0.3", 3128)
CLEAN = ("PATH", "LANG")
_REAP = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
"""The first process: it lets go of every process that has ended."""


def need_machine() -> None:
    """Skip where none can be made; fail where it is required."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]
    if os.getuid() != 0 or missing:
        (pytest.fail if "network" in REQUIRED else pytest.skip)(f"a machine of its own needs root, and {missing}")


class Machine:
    """Namespaces with loopback alone, in which ``names`` are this machine."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        hosts = directory / "hosts"
        hosts.write_text("127.0.0.1 localhost " + " ".join(names) + "\n")
        boot = f'ip link set lo up && mount --bind {hosts} /etc/hosts && touch {directory}/up && exec "$@"'
        words = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
        self._process = subprocess.Popen([*words, "sh", "-c", boot, "boot", "python3", "-c", _REAP])
        deadline = time.monotonic() + 60
        while not (directory / "up").exists():
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def on_it(self, *words: str, cwd: Path = Path("/")) -> list[str]:
        """The command there; it would begin in the root directory by itself."""
        space = f"/proc/{self._process.pid}/ns"
        kinds = (f"--net={space}/net", f"--mount={space}/mnt", f"--pid={space}/pid_for_children")
        return ["nsenter", *kinds, f"--wdns={cwd}", "--", *words]

    def inside(self) -> AbstractContextManager[None]:
        """This thread, and the sockets that it makes meanwhile, are on its network."""
        return _inside(f"/proc/{self._process.pid}/ns/net")

    def processes(self) -> list[str]:
        """The command lines of what runs, without this question."""
        ps = self.on_it("ps", "-eo", "args", "--no-headers")
        lines = subprocess.run(ps, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if not line.startswith(("ps ", "nsenter "))]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Seated(Cli):
    """A user of the machine."""

    machine: Machine = field(kw_only=True)

    def argv(self, *words: str) -> list[str]:
        return self.machine.on_it(*super().argv(*words))


@dataclass
class Lab:
    """``env``: what a user has there: a home, and trust in the imitated index's certificate."""

    machine: Machine
    upstream: Upstream
    authority: Authority
    cli: Seated
    home: Path

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in CLEAN if name in os.environ}
        bundle = str(self.authority.file)
        trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), bundle)
        return {
            **kept,
            "HOME": str(self.home),
            "NO_COLOR": "1",
            "DEPLOYER_STATE_DIR": str(self.cli.home / "state"),
            **trust,
        }

    def run(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of the user; ``env``: more variables, of which empty ones are taken away."""
        whole = {name: value for name, value in {**self.env, **(env or {})}.items() if value}
        return subprocess.run(
            self.machine.on_it(*words, cwd=cwd or self.home),
            env=whole,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def transparent(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same through ``deployer exec --transparent``."""
        argv = (self.cli.python, "-m", "deployer.cli", "exec", "--name", self.cli.name, "--transparent", "--", *words)
        return self.run(*argv, cwd=cwd, env=env)


def publish(upstream: Upstream, projects: Mapping[str, Sequence[Distribution]]) -> None:
    """Pages of a modern index: every file at ``FILES``, with size, time and metadata."""
    for project, made in projects.items():
        files = []
        for one in made:
            path = f"/packages/{one.sha256[:2]}/{one.sha256[2:4]}/{one.sha256[4:]}/{one.filename}"
            _answer(upstream, path, Answer(body=one.content))
            more = {}
            if one.metadata:
                _answer(upstream, f"{path}.metadata", Answer(body=one.metadata))
                more["core_metadata"] = {"sha256": hashlib.sha256(one.metadata).hexdigest()}
            files.append(
                file_of(
                    one,
                    f"https://{FILES}{path}",
                    size=len(one.content),
                    upload_time="2024-05-06T07:08:09.123456Z",
                    requires_python=">=3.8",
                    yanked=False,
                    **more,
                )
            )
        top = {"meta": {"api-version": "1.3"}, "versions": [one.version for one in made]}
        upstream.answers[f"/simple/{project}/"] = json_page(project, files, top, ETag=f'"{project}"')
        newest = made[-1]
        info = {"name": project, "version": newest.version, "requires_dist": None, "requires_python": ">=3.8"}
        info |= {"summary": "", "yanked": False}
        urls = [
            {
                "filename": file["filename"],
                "url": file["url"],
                "digests": file["hashes"],
                "packagetype": "bdist_wheel" if file["filename"].endswith(".whl") else "sdist",
                "yanked": False,
            }
            for file in files
        ]
        body = json.dumps({"info": info, "urls": urls, "releases": {}}).encode()
        for path in (f"/pypi/{project}/json", *(f"/pypi/{project}/{one.version}/json" for one in made)):
            _answer(upstream, path, Answer(body=body, kind="application/json"))


def _answer(upstream: Upstream, path: str, answer: Answer) -> None:
    """Both spellings of a local version's plus sign are one path."""
    upstream.answers[path] = upstream.answers[path.replace("+", "%2B")] = answer


def projects() -> dict[str, list[Distribution]]:
    """Two that need each other's kind, one of them with a source distribution as well."""
    return {
        "demo": [
            make_wheel("demo", "1.0"),
            make_sdist("demo", "2.0"),
            make_wheel("demo", "2.0", requires=["demo-dep>=1"]),
        ],
        "pip": [make_wheel("pip", "1.0")],  # by which a deployment without pages finds out where files are
        "iniconfig": [make_wheel("iniconfig", "2.0.0")],
        "demo-dep": [make_wheel("demo-dep", "1.5"), make_wheel("demo-dep", "1.6+local")],
    }


@contextmanager
def lab(directory: Path) -> Iterator[Lab]:
    """The machine, the index that clients know, and a deployment that mirrors it."""
    need_machine()
    authority = Authority(directory / "authority")
    machine = Machine(directory, (INDEX, FILES, OTHER))
    home = directory / "home"
    home.mkdir()
    try:
        with machine.inside():
            upstream = Upstream(host="127.0.0.1", port=443, tls=authority.context(INDEX, names=(INDEX, FILES, OTHER)))
            upstream.ranges = True
            publish(upstream, projects())
            upstream.start()
        user = directory / "user"
        user.mkdir()
        cli = Seated(home=user, engine="process", machine=machine)
        up = cli.up("--no-pip", "--set", f"network.ca_file={authority.file}", "--set", "server.request_timeout=15")
        assert up.code == 0, up.err
        yield Lab(machine, upstream, authority, cli, home)
        cli.clean()
    finally:
        machine.stop()
        upstream.stop()
