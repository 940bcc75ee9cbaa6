"""Record the main job for the README, from a real run: ``python -m tools.recording``.

It starts a server on the process engine in a home of its own, on the default port, which must be free, and downloads
one small package from this host's package index. What is shown is what was printed; only the home is renamed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parent.parent / "docs/recording.svg"
HOME = "/home/you"
COMMANDS = (
    "deployer up --engine process",
    "pip download --no-deps --no-cache-dir --dest first iniconfig",
    "deployer offline on",
    "pip download --no-deps --no-cache-dir --dest second iniconfig",
    "deployer status",
)
UNDO = ("deployer down --purge --yes", "deployer configure-pip --undo")
KEPT = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LANG")
WIDTH = 116


def record(home: Path) -> Console:
    """Run the commands one after the other; the console that shows what they printed."""
    programs = Path(sys.executable).parent
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    env |= {"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", "COLUMNS": str(WIDTH)}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = env["PIP_NO_INPUT"] = "1"
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    try:
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(_run(command, env, home)))
    finally:
        for command in UNDO:
            _run(command, env, home)
    return console


def _run(command: str, env: dict[str, str], home: Path) -> str:
    done = subprocess.run(
        command.split(), env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout.replace(str(home), HOME)


def main() -> None:
    """Write the picture."""
    # Without the font of another host: a picture may load nothing.
    frame = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    with TemporaryDirectory() as home:
        console = record(Path(home))
        PICTURE.write_text(console.export_svg(title="deployer", code_format=frame), encoding="utf-8")


if __name__ == "__main__":
    main()
