"""``python -m deployer.testing.keeper``: keeps a deployment up until its standard input ends.

The first line of the input is the deployment's profile as JSON. The pipe ends with the process that holds its other
side, so the deployment is removed even if that process is killed. Prints one line of JSON: ``directory``, where the
deployment's records are, and ``up``, what ``deployer up --json`` printed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deployer.protocol import OWN_PYTHON

DEPLOYER = (*OWN_PYTHON, "-m", "deployer")


def state(directory: str) -> dict[str, str]:
    """The variable that has deployer keep its records in ``directory``."""
    return {"DEPLOYER_STATE_DIR": str(Path(directory) / "state")}


def main() -> int:
    """Run; the exit code is that of ``up``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the pipe is what counts
    with TemporaryDirectory(prefix="deployer-testing-") as directory:
        profile = Path(directory) / "profile.yaml"  # JSON is YAML, too
        profile.write_bytes(sys.stdin.buffer.readline())
        env = os.environ | state(directory)
        try:
            words = [*DEPLOYER, "up", "--profile", str(profile), "--json"]
            up = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
            print(json.dumps({"directory": directory, "up": up.stdout.decode()}), flush=True)  # noqa: T201
            sys.stdin.buffer.read()
        finally:
            words = [*DEPLOYER, "down", "--profile", str(profile), "--purge", "--yes", "--quiet"]
            subprocess.run(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return up.returncode


if __name__ == "__main__":
    sys.exit(main())
