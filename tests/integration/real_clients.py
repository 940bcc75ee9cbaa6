"""The programs with which people publish, as they have them: devpi-client, twine and uv, none of ours in their way."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.cli import Cli

BESIDE = Path(sys.executable).parent


@dataclass(frozen=True)
class Clients:
    """``home`` is theirs alone."""

    cli: Cli
    home: Path

    def run(self, program: str, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """One program of this environment."""
        return subprocess.run(
            [str(BESIDE / program), *words],
            env={**self.cli.env, "HOME": str(self.home), "NO_COLOR": "1", **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=self.home,
        )

    def devpi(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        verb, *rest = words
        return self.run("devpi", verb, "--clientdir", str(self.home / "devpi"), *rest, stdin=stdin)

    def twine(self, index: str, *files: str, user: str, password: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "twine",
            *("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", f"{self.cli.url}/{index}/"),
            *files,
            TWINE_USERNAME=user,
            TWINE_PASSWORD=password,
        )

    def uv(self, index: str, *files: str, **credentials: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "uv", "publish", "--no-config", "--publish-url", f"{self.cli.url}/{index}/", *files, **credentials
        )
