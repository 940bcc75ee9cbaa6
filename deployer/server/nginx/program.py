"""The program nginx: the one of this host, else the one that is installed as a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from deployer.server.nginx import wheel
from deployer.server.nginx.known import Known, identity

_BESIDE = "/usr/sbin:/usr/local/sbin"
"""Where nginx may be besides the directories of ``PATH``."""


class NginxUnusable(Exception):
    """nginx can't be used here; the message says why."""


def log_line(line: str) -> None:
    """Write one line to the log."""
    sys.stderr.write(f"deployer: {line}\n")
    sys.stderr.flush()


@dataclass(frozen=True, kw_only=True)
class Nginx:
    """The program: its path, its version, where it is from, and what is known of it."""

    path: str
    version: str
    origin: str
    known: Known

    @classmethod
    def find(cls, known: Known | None) -> Nginx:
        """The nginx to run; it is asked for its version unless it is the ``known`` one. Raises NginxUnusable."""
        if sys.platform != "linux":
            raise NginxUnusable(f"on {sys.platform} nginx could outlive the server")
        path = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_BESIDE}")
        why = "nginx is not installed"
        if path is not None:
            try:
                return cls._asked(path, path, known)
            except NginxUnusable as unusable:
                why = str(unusable)
        try:
            program = wheel.installed()
            if program is None:
                raise NginxUnusable(why)
            if known is None or known.program != identity(str(program)):
                wheel.check(program)
        except (ValueError, OSError) as error:
            raise NginxUnusable(f"{why}, and {error}") from None
        return cls._asked(str(program), wheel.NAME, known)

    @classmethod
    def _asked(cls, path: str, origin: str, known: Known | None) -> Nginx:
        try:
            program = identity(path)
            if known is None or known.program != program:
                done = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=True)
                known = Known(program=program, printed=done.stderr)
        except (OSError, subprocess.SubprocessError) as error:
            raise NginxUnusable(f"can't run {path}: {error}") from None
        version = re.search(r"nginx version: \S+?/([\d.]+)", known.printed)
        if version is None:
            raise NginxUnusable(f"{path} -V prints no version")
        if "http_auth_request_module" not in known.printed:
            raise NginxUnusable(f"{path} has no auth_request module")
        return cls(path=path, version=version[1], origin=origin, known=known)

    @property
    def version_info(self) -> tuple[int, ...]:
        return tuple(int(number) for number in self.version.split("."))

    @property
    def options(self) -> tuple[str, ...]:
        # Older versions open their built-in error log before they read the configuration, and print a warning.
        return ("-e", "stderr") if self.version_info >= (1, 19, 5) else ()

    def has(self, word: str) -> bool:
        """Whether it was built with this option of its ``configure``, such as ``http_gzip_static_module``."""
        return f"--with-{word}" in self.known.printed.split()

    @property
    def grants(self) -> bool:
        """Whether it verifies passwords by a file (auth_basic)."""
        return "--without-http_auth_basic_module" not in self.known.printed.split()

    def __str__(self) -> str:
        return f"nginx {self.version} ({self.origin})"
