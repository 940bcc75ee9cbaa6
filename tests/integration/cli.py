"""The command line as a user has it: a process of its own, a home of its own, nothing of ours in its environment.

The process is forked, for it imports half a second long: most of what the tests of one verb would be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deployer.commands.envelope import DATA, FIELDS
from deployer.image import build_digest, reference
from deployer.protocol import BODY_ROUTE
from deployer.spec import LABEL_BUILD
from tests.engines import BASE
from tests.forked import run_module
from tests.own_image import alone, share
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, request

KEPT = (
    *("PATH", "LANG", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH"),
    *("DOCKER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERD_ADDRESS", "CNI_PATH"),
    *("NERDCTL_TOML", "BUILDKIT_HOST"),
)


@dataclass(frozen=True, kw_only=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The one JSON document that is all of stdout."""
        parsed = json.loads(self.out)
        assert set(parsed) == {"schema", "command", "ok", "data", "warnings", "error"}
        assert parsed["ok"] is (self.code == 0)
        if FIELDS not in (declared := DATA[parsed["command"]]):
            assert set(parsed["data"]) <= set(declared), parsed["command"]
        return dict(parsed)

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.envelope["data"])


WATCH = """#!/bin/sh
echo "$*" >>{log}
exec {real} "$@"
"""


@dataclass
class Cli:
    """One deployment of one user: ``home`` holds all that the command line may touch."""

    home: Path
    engine: str
    network: str = "bridge"
    upstream: str = ""
    port: int = field(default_factory=free_port)
    name: str = field(default_factory=lambda: f"deployer-test-{uuid.uuid4().hex[:8]}")
    python: str = sys.executable
    extra: dict[str, str] = field(default_factory=dict)
    shared: IO[bytes] | None = field(default=None, repr=False)

    @property
    def env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "DEPLOYER_NAME": self.name,
            "DEPLOYER_BASE_IMAGE": BASE,
            "DEPLOYER_STATE_DIR": str(self.home / "state"),
            **self.extra,
        }

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def pip_conf(self) -> Path:
        return self.home / ".config/pip/pip.conf"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self, *words: str) -> list[str]:
        """What of the engine's own client a command starts: the verbs, in order."""
        log, bin_ = self.home / "calls", self.home / "watch"
        bin_.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        if real := shutil.which(self.engine):
            (bin_ / self.engine).write_text(WATCH.format(log=log, real=real))
            (bin_ / self.engine).chmod(0o755)
        self.run(*words, env={"PATH": f"{bin_}:{os.environ['PATH']}"})
        lines = log.read_text().splitlines() if log.exists() else []
        return [" ".join(word for word in line.split()[:2] if word.isalpha()) for line in lines]

    def requests(self) -> list[str]:
        """What the server was asked so far, from its log: methods and paths.

        A log is written behind the server's back: it is complete as soon as it tells of a request that is made now.
        """
        last = f"/mark-{uuid.uuid4().hex}"
        request(self.port, "GET", last)
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.findall(r"\[req\d+\] ([A-Z]+ \S+)", self.run("logs", "-n", "100000").out)
            if f"GET {last}" in found:
                # Not asked by the command: the mark, and what nginx asks before it lets a body through.
                return [one for one in found if not one.startswith(("GET /mark-", f"GET {BODY_ROUTE}"))]
            assert time.monotonic() < deadline, found[-20:]

    def argv(self, *words: str) -> list[str]:
        return [self.python, "-m", "deployer.cli", *words]

    def run(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 600) -> Done:
        if words[:1] == ("up",) and self.shared is None:
            self.shared = share(self.engine)
        whole, argv = {**self.env, **(env or {})}, self.argv(*words)
        if argv[:3] == [sys.executable, "-m", "deployer.cli"]:
            done = run_module("deployer.cli", argv[3:], env=whole, cwd=self.home, stdin=stdin, timeout=timeout)
        else:  # another interpreter, or as another user
            done = subprocess.run(
                argv,
                env=whole,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                cwd=self.home,
            )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def have_image(self) -> None:
        """Have our own image on the engine; one that fits is left alone, for others run from it."""
        form = '{{index .Config.Labels "' + LABEL_BUILD + '"}}'
        words = [self.engine, "image", "inspect", f"--format={form}", reference()]
        there = subprocess.run(words, capture_output=True, text=True, check=False, env=self.env).stdout.strip()
        if there != build_digest(BASE):
            with alone(self.engine):
                built = self.run("image", "build", "--engine", self.engine)
            assert built.code == 0, built.err

    def up_words(self, *words: str) -> Sequence[str]:
        where = ["--engine", self.engine, "--port", str(self.port), "--data", str(self.data)]
        if self.engine != "process":
            where += ["--network", self.network]
        if self.upstream:
            where += ["--upstream", self.upstream]
        return ("up", *where, *words)

    def up(self, *words: str, **kwargs: Any) -> Done:
        return self.run(*self.up_words(*words), **kwargs)

    def pip(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The real pip, configured by nothing but this user's files."""
        return subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", *words],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def clean(self) -> None:
        self.run("down", "--engine", self.engine, "--purge", "--yes", "--wait", "30")
        if self.shared is not None:
            self.shared.close()
            self.shared = None
