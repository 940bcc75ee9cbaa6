"""Follow the commands of a how-to page, as a user would type them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HOW_TO = Path(__file__).parents[1] / "docs/how-to"
PATH = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"


def blocks(page: str) -> list[str]:
    """The shell blocks of a how-to page."""
    return re.findall(r"^```sh\n(.*?)^```$", (HOW_TO / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def type_in(
    lines: str, *, home: Path, env: Mapping[str, str], replaced: Mapping[str, str], before: tuple[str, ...] = ()
) -> str:
    """Type each line in ``home``; all must succeed. Their output.

    ``replaced``: what stands for the machines and places of the page. ``before``: words before the shell.
    """
    said = ""
    written = re.compile("|".join(map(re.escape, sorted(replaced, key=len, reverse=True))) or "(?!)")
    for line in lines.splitlines():
        typed = written.sub(lambda found: replaced[found[0]], line)
        words = [*before, "bash", "-c", typed]
        done = subprocess.run(words, env=dict(env), cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{typed}\n{done.stdout}{done.stderr}"
        said += done.stdout + done.stderr
    return said
