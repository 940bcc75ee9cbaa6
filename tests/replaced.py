"""What of devpi's own code our server replaces, found by looking at all of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs/reference/devpi-replaced.md"
INSTALL = """
from deployer.server.devpi import replacements
replacements.install(lambda url: None, web=True)
"""
_LOOK = """
import json, sys
def home(value):
    value = getattr(value, "fget", value)
    return getattr(value, "__module__", None) or type(value).__module__
found = set()
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] not in ("devpi_server", "devpi_tokens", "devpi_web", "devpi_common"):
        continue
    for label, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == name:
            found |= {f"{label}.{key}" for key, own in vars(value).items() if home(own).startswith("deployer.server")}
        elif home(value).startswith("deployer.server"):
            found.add(f"{name.rpartition('.')[2]}.{label}")
print(json.dumps(sorted(found)))
"""


def replaced(python: str) -> set[str]:
    """Names of methods, properties and objects that are ours once a server has been put together by ``python``."""
    done = subprocess.run([python, "-c", INSTALL + _LOOK], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def documented(major: str) -> set[str]:
    """What the documentation's table says, of one version of devpi-server: ``6`` or ``7``."""
    rows = [line.split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[{"6": 1, "7": 2}[major]])}


def relied_on_as_documented() -> dict[str, set[str]]:
    """The modules of the documentation's table of what is relied on: by ``both``, ``6`` and ``7``."""
    text = DOCS.read_text(encoding="utf-8").partition("## What is relied on")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row[1].strip().removeprefix("devpi-server "), set()).update(
            re.findall(r"`(devpi_\S+)`", row[2])
        )
    return {kind: modules for kind, modules in found.items() if modules}
