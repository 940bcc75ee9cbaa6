"""``python -m benchmarks.backups``: backups under load, restored and compared, with kills in between; by hand.

Clients upload and delete without a pause. In each round one backup is killed at a random moment and one is taken;
both must leave every backup of the directory whole. The last one is restored: devpi's own check must find nothing, and
each upload that was acknowledged before the backup began, and not deleted, must be there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.indexed_server import upload
from tests.server_process import COMMAND, Server, request
from tests.upstream import make_wheel


class Churn:
    """A client that uploads and deletes. ``stays``: digests of acknowledged uploads that nobody deletes."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._seed = server, seed
        self._chance = random.Random(seed)  # noqa: S311 - not a secret
        self._auth = server.auth
        self.stays: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.writes = 0

    def _run(self) -> None:
        while not self.stop.is_set():
            self.writes += 1
            name = f"churn{self._seed}-{self._chance.randrange(4)}"
            roll = self._chance.random()
            if roll < 0.4:
                request(self._server.port, "DELETE", f"/root/dev/{name}", headers=self._auth)
            else:
                name = name if roll < 0.8 else f"stays{self._seed}"
                wheel = make_wheel(name, f"1.{self.writes}")
                if upload(self._server, self._auth, "root/dev", wheel) == 200 and name.startswith("stays"):
                    self.stays.append(wheel.sha256)


def server_verb(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False)


def one_round(server: Server, directory: Path, target: Path, churns: list[Churn], chance: random.Random) -> str:
    """Kill one backup, take one, verify all, restore the last; what was wrong, empty for nothing."""
    words = ("backup", "create", "--directory", directory, "--serverdir", server.serverdir)
    killed = subprocess.Popen([*COMMAND, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(chance.uniform(0.0, 1.5))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    expected = {digest for churn in churns for digest in tuple(churn.stays)}
    made = server_verb(*words)
    if made.returncode:
        return f"create: {made.stderr}"
    said: dict[str, Any] = json.loads(made.stdout)
    if said["lost"]:
        return f"create: {said['lost']}"
    for manifest in sorted((directory / "backups").iterdir())[-3:]:
        if (done := server_verb("backup", "verify", "--directory", directory, "--backup", manifest.stem)).returncode:
            return f"verify {manifest.stem}: {done.stderr}"
    shutil.rmtree(target, ignore_errors=True)
    if (done := server_verb("backup", "restore", "--directory", directory, "--serverdir", target)).returncode:
        return f"restore: {done.stderr}"
    if (done := server_verb("fsck", "--serverdir", target)).returncode or "issing" in done.stdout + done.stderr:
        return f"fsck: {(done.stdout + done.stderr)[-2000:]}"
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in target.glob("+files/**/*.whl")}
    return f"{len(expected - there)} acknowledged uploads are not there" if expected - there else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backups", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60.0, help="end after so many, whatever is left")
    options = parser.parse_args()
    chance = random.Random(1)  # noqa: S311 - not a secret
    whole, done, until = 0, 0, time.monotonic() + 60 * options.minutes
    with TemporaryDirectory(prefix="deployer-backups-") as scratch:
        directory = Path(scratch)
        server = Server(directory / "data").start()
        try:
            body = {"type": "stage", "bases": [], "volatile": True}
            assert request(server.port, "PUT", "/root/dev", body=body, headers=server.auth)[0] == 200
            churns = [Churn(server, seed) for seed in (1, 2, 3)]
            for churn in churns:
                churn.thread.start()
            while done < options.rounds and time.monotonic() < until:
                wrong = one_round(server, directory / "backups", directory / "restored", churns, chance)
                done, whole = done + 1, whole + (not wrong)
                sys.stdout.write(f"{done}: {wrong or 'whole'}\n")
                sys.stdout.flush()
            for churn in churns:
                churn.stop.set()
                churn.thread.join()
            writes = sum(churn.writes for churn in churns)
            sys.stdout.write(f"{whole} of {done} backups restored whole; {writes} writes meanwhile\n")
        finally:
            server.end()
    sys.exit(whole != done)


if __name__ == "__main__":
    main()
