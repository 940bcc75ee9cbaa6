"""The import contracts hold here, and each is broken by the import that it is there to forbid."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ONE_WAY = "Imports go one way"
PROTOCOL = "The parts of the protocol know values and files alone"
SERVER = "Only the server imports the server"
VERBS = "Verbs do not import each other"
LEAVES = "Verbs of a group do not import each other"
DEVPI = "What talks to devpi stands above what is pure"
PURE = "The pure part has no effects"
PROCESSES = "Processes are started in one place"
ROOMS = "The rooms of the server import one way"
RICH = "Only the user interface knows rich"

BREAKS = {
    "the server imports a client": ("server/secret_files.py", "from deployer.clients import files", {ONE_WAY}),
    "the server imports errors": ("server/pages/store.py", "from deployer import errors", {ONE_WAY}),
    "the protocol imports errors": ("protocol/values.py", "from deployer import errors", {ONE_WAY, PROTOCOL}),
    "orders import backups": ("protocol/orders.py", "from deployer.protocol import backup", {PROTOCOL}),
    "a part of the protocol in no layer": ("protocol/helper.py", "", {PROTOCOL}),
    "the server's pages import its boot": ("server/pages/store.py", "from deployer.server import boot", {ROOMS}),
    "a room of the server in no layer": ("server/helper.py", "", {ROOMS}),
    "session imports the server": ("deployment/session.py", "from deployer.server import secret_files", {SERVER}),
    "spec imports the server": ("spec.py", "import deployer.server.secret_files", {SERVER, PURE}),
    "readiness imports commands": ("readiness/probe.py", "from deployer.commands import Common", {ONE_WAY}),
    "an operation imports a verb": ("operations/up.py", "from deployer.commands import Common", {ONE_WAY}),
    "plan imports engines": ("plan/order.py", "import deployer.engines", {ONE_WAY, PURE}),
    "clients import engines": ("clients/files.py", "import deployer.engines.base", {ONE_WAY}),
    "a verb imports another": ("commands/start.py", "from deployer.commands import stop", {VERBS}),
    "a verb imports one of a group": ("commands/start.py", "from deployer.commands.index import list", {VERBS}),
    "a group imports another": ("commands/mirror/list.py", "from deployer.commands.index import list", {VERBS, LEAVES}),
    "a verb imports one of its group": ("commands/index/show.py", "from deployer.commands.index import list", {LEAVES}),
    "render starts processes": ("render.py", "import subprocess", {PURE, PROCESSES}),
    "plan reads the environment": ("plan/data.py", "import os", {PURE}),
    "a model waits": ("profile/models.py", "from time import sleep", {PURE}),
    "a diagnosis connects": ("diagnosis/network.py", "import socket", {PURE}),
    "pure code of devpi talks": ("devpi/topology.py", "from deployer.devpi import api", {DEVPI}),
    "a verb starts processes": ("commands/logs.py", "from subprocess import run", {PROCESSES}),
    "an engine starts processes": ("engines/argv.py", "import subprocess", {PROCESSES}),
    "an operation draws tables": ("operations/status.py", "from rich.table import Table", {RICH}),
    "a module in no layer": ("helper.py", "", {ONE_WAY}),
    "a module of devpi in no layer": ("devpi/helper.py", "", {DEVPI}),
    "a pure room gets a module with effects": ("plan/helper.py", "import time", {PURE}),
}


def broken(root: Path) -> set[str]:
    """The names of the contracts that do not hold in a tree."""
    words = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)", done.stdout, re.MULTILINE))
    assert set(verdicts) == names(), done.stdout + done.stderr
    found = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert (done.returncode == 0) is (not found)
    return found


def names() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that the linter looks at."""
    root = tmp_path_factory.mktemp("contracts")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "deployer", root / "deployer", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_all_contracts_hold(tree: Path) -> None:
    assert broken(tree) == set()


@pytest.mark.parametrize(("file", "line", "contracts"), BREAKS.values(), ids=BREAKS.keys())
def test_a_contract_is_broken_by(file: str, line: str, contracts: set[str], tree: Path) -> None:
    path = tree / "deployer" / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + f"\n{line}\n".encode())
    try:
        assert broken(tree) == contracts
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def test_every_contract_is_broken_once() -> None:
    assert {name for _, _, contracts in BREAKS.values() for name in contracts} == names()
