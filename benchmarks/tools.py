"""The programs of the peers, and ours, each in an environment of the benchmark's own, kept from run to run.

Ours is installed as its users install it: beside pytest, which devpi-server finds and imports, each start takes longer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

REQUIREMENTS = ("proxpi==1.3.1", "gunicorn", "pypiserver[cache]==2.4.2", "pypiron==0.0.29", "uv")
"""Beside devpi-server, of which the peers have the version that is installed here."""
ROOT = Path(__file__).parent.parent
_KEPT = ("PATH", "LANG", "HOME", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Tools:
    """Programs in the directory ``bin``, and ``deployer``."""

    bin: Path
    deployer: Path

    def program(self, name: str) -> str:
        return str(self.bin / name)

    @property
    def env(self) -> dict[str, str]:
        """What every peer and client gets: no proxy, no configuration of this user."""
        kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
        return {**kept, "UV_NO_CONFIG": "1", "UV_HTTP_TIMEOUT": "180", "NO_PROXY": "127.0.0.1"}


def installed(cache: Path, crates: Sequence[str] = ()) -> Tools:
    """The tools in ``cache``; installed there by pip, as this user has configured it, if they are not yet.

    ``crates``: what cargo builds as well, ``name==version``, where there is cargo; that takes ten minutes.
    """
    devpi = f"devpi-server=={version('devpi-server')}"
    peers = _environment(cache / "peers", [*REQUIREMENTS, devpi])
    for crate in crates:
        for program in _built(cache, crate):
            (peers / program.name).unlink(missing_ok=True)
            (peers / program.name).symlink_to(program)
    declared = (ROOT / "pyproject.toml").read_text()
    ours = _environment(cache / "ours", [f"--editable={ROOT}[server,transparent]", devpi], when=declared)
    return Tools(peers, ours / "deployer")


def _environment(venv: Path, requirements: Sequence[str], *, when: str = "") -> Path:
    """The programs of a virtual environment, made anew where ``requirements`` or ``when`` have changed."""
    wanted = "\n".join([*requirements, when])
    stamp = venv / "requirements"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing into {venv}", file=sys.stderr)
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text(wanted)
    return venv / "bin"


def _built(cache: Path, crate: str) -> list[Path]:
    """The programs of ``crate``; none where cargo is missing or fails, which costs one peer and nothing else."""
    name, _, number = crate.partition("==")
    root, cargo = cache / f"{name}-{number}", shutil.which("cargo")
    if not (root / "bin").exists() and cargo is not None:
        print(f"building {crate} into {root}", file=sys.stderr)
        words = [cargo, "install", "--quiet", "--locked", name, "--version", number, "--root", str(root)]
        subprocess.run(words, check=False)
    return sorted((root / "bin").glob("*"))


def beside_this_python() -> Tools:
    """What is installed with the benchmarks: enough for the peers that need nothing else."""
    programs = Path(sys.executable).parent
    return Tools(programs, programs / "deployer")
