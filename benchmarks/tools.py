"""The programs of the peers, in an environment of the benchmark's own, which is kept from run to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

REQUIREMENTS = ("proxpi==1.3.1", "gunicorn", "pypiserver[cache]==2.4.2", "uv")
"""Beside devpi-server, of which the peers have the version that is installed here."""
_KEPT = ("PATH", "LANG", "HOME", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Tools:
    """Programs in the directory ``bin``."""

    bin: Path

    def program(self, name: str) -> str:
        return str(self.bin / name)

    @property
    def env(self) -> dict[str, str]:
        """What every peer and client gets: no proxy, no configuration of this user."""
        kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
        return {**kept, "UV_NO_CONFIG": "1", "UV_HTTP_TIMEOUT": "180", "NO_PROXY": "127.0.0.1"}


def installed(cache: Path) -> Tools:
    """The tools in ``cache``; installed there by pip, as this user has configured it, if they are not yet."""
    wanted = "\n".join([*REQUIREMENTS, f"devpi-server=={version('devpi-server')}"])
    venv = cache / "peers"
    stamp = venv / "requirements"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing the peers into {venv}", file=sys.stderr)
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", *wanted.split("\n")], check=True)
        stamp.write_text(wanted)
    return Tools(venv / "bin")


def beside_this_python() -> Tools:
    """What is installed with the benchmarks: enough for the peers that need nothing else."""
    return Tools(Path(sys.executable).parent)
