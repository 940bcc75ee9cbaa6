"""Real clients: each uses the index where we wrote it, and not where it reads nothing; lock files become those made
without us. The table in docs/reference/clients.md is what was seen here; ``--snapshot-update`` writes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forked import run_module
from tests.front import need_nginx
from tests.indexed_server import JSON, get, make_indexes, upload
from tests.integration.packagers import WANTED, Packagers, install, run
from tests.server_process import PATIENCE, Server
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/clients.md"
MARK = "<!-- made by tests/integration/test_clients.py -->\n"
NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses: whoever asks another index than ours gets no further."""
PROJECT = '# mine\n[project]\nname = "work"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["{}"]\n'
MINE = {
    ".config/pip/pip.conf": "# mine\n[global]\ntimeout = 3\n",
    "machine/uv/uv.toml": "# the machine's\nnative-tls = false\n",
    "machine/pdm/config.toml": "# the machine's\n",
    ".config/uv/uv.toml": "# mine\nnative-tls = false # why\n",
    ".config/pdm/config.toml": "# mine\ncheck_update = false # why\n",
    ".config/pypoetry/config.toml": "# mine\n[keyring]\nenabled = false # why\n",
}
"""What the user has in the files already."""


@dataclass
class Lab:
    """A server of ours, its upstream, and the clients. Each use has a project, and so requests, of its own."""

    server: Server
    upstream: Upstream
    packagers: Packagers
    root: Path
    numbers: Iterator[int] = field(default_factory=count)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/root/dev/+simple/"

    def project(self) -> str:
        """A new project at the upstream, with a console script."""
        with self.lock:
            name = f"demo{next(self.numbers)}"
            files = {
                f"{name}.py": "def main(): pass\n",
                f"{name}-1.0.dist-info/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
            }
            self.upstream.add(make_wheel(name, "1.0", files=files))
            return name

    def used(self) -> set[str]:
        """The projects of which the server's log has the page and a file, or the metadata of one."""
        mark = f"mark-{next(self.numbers)}"
        get(self.server.port, f"/root/dev/+simple/{mark}/", JSON)
        deadline = time.monotonic() + PATIENCE
        while True:  # nginx writes its log behind
            text = (self.server.private / "log/access.log").read_text()
            if mark in text:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        asked = [json.loads(line) for line in text.splitlines()]
        pages = {one["project"] for one in asked if one["path"].endswith(f"/+simple/{one['project']}/")}
        files = {one["path"].rpartition("/")[2].partition("-")[0] for one in asked if one["status"] == 200}
        return pages & files


@dataclass
class Place:
    """A home with a project in it, and nothing in its environment that points at an index."""

    lab: Lab
    home: Path
    path: str
    name: str

    @classmethod
    def make(cls, lab: Lab, *programs: str) -> Place:
        name = lab.project()
        place = cls(lab, lab.root / name, lab.packagers.path(*programs), name)
        place.work.mkdir(parents=True)
        for path, text in {**MINE, "work/pyproject.toml": PROJECT.format(name)}.items():
            (place.home / path).parent.mkdir(parents=True, exist_ok=True)
            (place.home / path).write_text(text)
        return place

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def env(self) -> dict[str, str]:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
        return {
            "PATH": self.path,
            "HOME": str(self.home),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **proxies,
            "LANG": "C.UTF-8",
            "XDG_CONFIG_DIRS": str(self.home / "machine"),
            "PIP_RETRIES": "0",
            "UV_HTTP_RETRIES": "0",
            "UV_PYTHON_DOWNLOADS": "never",
            "POETRY_REQUESTS_MAX_RETRIES": "0",
            "POETRY_VIRTUALENVS_CREATE": "false",
            "PDM_USE_VENV": "false",
            "PDM_IGNORE_SAVED_PYTHON": "1",
            "PDM_PYTHON": sys.executable,
            "PIPX_SHARED_LIBS": str(self.lab.packagers.root / "pip26"),
            "PIPX_DEFAULT_PYTHON": sys.executable,
            "PEX_ROOT": str(self.lab.root / "pex"),
            "DEPLOYER_STATE_DIR": str(self.home / "state"),
        }

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run(*words, env={**self.env, **env}, cwd=self.work)

    def deployer(self, *words: str) -> dict[str, Any]:
        done = run_module("deployer.cli", [*words, "--json"], env=self.env, cwd=self.work, stdin="", timeout=120)
        envelope = json.loads(done.stdout)
        return {**envelope, "code": done.returncode}

    def files(self) -> dict[str, str]:
        """The configuration of all clients; hatch writes one of its own besides."""
        paths = [*(self.home / path for path in MINE), *self.work.glob("*.toml")]
        return {str(path.relative_to(self.home)): path.read_text() for path in paths if path.exists()}


Command = Callable[[Place], subprocess.CompletedProcess[str]]


def pip(environment: str) -> Command:
    def call(place: Place) -> subprocess.CompletedProcess[str]:
        words = ("-m", "pip", "install", "--no-cache-dir", "--no-deps", "--target", "target", place.name)
        return place.run(place.lab.packagers.python(environment), *words)

    return call


def words(*given: str, extra: str = "", **env: str) -> Command:
    """A command of these words, with the project's name for ``NAME``; ``extra``: what pyproject.toml has besides."""

    def call(place: Place) -> subprocess.CompletedProcess[str]:
        if extra:
            with (place.work / "pyproject.toml").open("a") as stream:
                stream.write(extra.replace("NAME", place.name))
        (place.work / "wanted.in").write_text(f"{place.name}\n")
        return place.run(*(word.replace("NAME", place.name) for word in given), **env)

    return call


HATCH = '[tool.hatch.envs.default]\nskip-install = true\ndependencies = ["NAME"]\n'


@dataclass(frozen=True)
class Client:
    """A row of the table. ``scope``: of ``apply``; ``ignores``: the clients whose files it does not read.

    ``inert``: it reads no file, and ``apply`` refuses.
    """

    title: str
    apply: str
    programs: tuple[str, ...]
    command: Command
    ignores: tuple[str, ...] = ()
    scope: str = "user"
    inert: bool = False

    @property
    def version(self) -> str:
        return WANTED.get(self.programs[0], ("",))[0].partition("==")[2]


FILES = {"pip": "pip.conf", "uv": "uv.toml"}
PYTHON = {"UV_PYTHON": sys.executable}  # not of hatch, which then installs there
NO_CACHE = ("--no-cache", "--target", "target", "NAME")
ENV = ("hatch", "env", "create")
UV_TOO = f'{HATCH}installer = "uv"\n'
PIPX = ("pipx", "install", "--backend")
PEX = ("-o", "x.pex", "NAME")
ROWS = (
    Client("pip {}", "pip", ("pip26",), pip("pip26"), ("uv",)),
    Client("pip {}", "pip", ("pip23",), pip("pip23"), ("uv",)),
    Client("uv pip", "uv", ("uv",), words("uv", "pip", "install", *NO_CACHE, **PYTHON), ("pip",)),
    Client("uv lock, uv sync", "uv", ("uv",), words("uv", "sync", "--no-cache", **PYTHON), scope="project"),
    Client("uv pip", "uv", ("uv",), words("uv", "pip", "install", *NO_CACHE, **PYTHON), scope="machine"),
    Client("poetry {}", "poetry", ("poetry",), words("poetry", "lock"), ("pip", "uv"), "project"),
    Client("poetry {} with poetry-plugin-pypi-mirror", "poetry", ("poetry-mirror",), words("poetry", "lock")),
    Client("pdm {}", "pdm", ("pdm",), words("pdm", "lock"), ("pip", "uv")),
    Client("pdm {}", "pdm", ("pdm",), words("pdm", "lock"), scope="project"),
    Client("pdm {}", "pdm", ("pdm",), words("pdm", "lock"), scope="machine"),
    Client("hatch {}, installer pip", "hatch", ("hatch",), words(*ENV, extra=HATCH), ("uv",)),
    Client("hatch {}, installer uv", "hatch", ("hatch", "uv"), words(*ENV, extra=UV_TOO), ("pip",)),
    Client("pipx {}, back end pip", "pipx", ("pipx",), words(*PIPX, "pip", "NAME"), ("uv",)),
    Client("pipx {}, back end uv", "pipx", ("pipx", "uv"), words(*PIPX, "uv", "NAME"), ("pip",)),
    Client("pip-tools {}", "pip-tools", ("pip-tools",), words("pip-compile", "--no-header", "wanted.in"), ("uv",)),
    Client("pex {}", "pex", ("pex",), words("pex", "--retries", "0", *PEX), ("pip", "uv"), inert=True),
    Client("pex {} --use-pip-config", "pip", ("pex",), words("pex", "--use-pip-config", *PEX), ("uv",)),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need_nginx()
    packagers = install(tmp_path_factory.getbasetemp())
    root = tmp_path_factory.mktemp("clients")
    server = Server(root / "data")
    with Upstream() as upstream:
        try:
            server.start("--front", "nginx")
            make_indexes(server.port, server.auth, upstream)
            yield Lab(server, upstream, packagers, root)
        finally:
            server.end()


@dataclass(frozen=True)
class Run:
    """One use: its project, where the index was written, whether the command succeeded, and whether all is restored."""

    project: str
    where: str
    succeeded: bool
    undone: bool
    told: str


def configured(lab: Lab, row: Client, names: tuple[str, ...], scope: str) -> Run:
    """Point ``names`` at the index, use ``row``, and undo."""
    place = Place.make(lab, *row.programs)
    before = place.files()
    applied = place.deployer("clients", "apply", *names, "--scope", scope, "--url", lab.url)
    done = row.command(place)
    if row.title.startswith("hatch"):  # the command added to the project's file
        before["work/pyproject.toml"] = (place.work / "pyproject.toml").read_text()
    undone = place.deployer("clients", "undo")["data"]["files"]
    where = ", ".join(f"`{Path(item['path']).relative_to(place.home)}`" for item in undone if item["changed"])
    told = f"{applied['error']}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    return Run(place.name, where, done.returncode == 0, place.files() == before, told)


def test_every_client_uses_the_index_and_is_restored(lab: Lab, request: pytest.FixtureRequest) -> None:
    ignoring = [row for row in ROWS if row.ignores]
    jobs = [*((row, (row.apply,), row.scope) for row in ROWS), *((row, row.ignores, "user") for row in ignoring)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda job: configured(lab, *job), jobs))
    own, past, used = done[: len(ROWS)], done[len(ROWS) :], lab.used()
    for row, one in zip(ROWS, own, strict=True):
        assert (one.project in used and one.succeeded) is not row.inert, f"{row.title}: {one.told}"
    for row, one in zip(ignoring, past, strict=True):
        assert one.project not in used, f"{row.title} reads {row.ignores}: {one.told}"
    assert [job[0].title for job, one in zip(jobs, done, strict=True) if not one.undone] == []
    made = table(dict(zip(ROWS, own, strict=True)))
    head, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    _, end, tail = rest.partition("<!-- end -->\n")
    if request.config.getoption("update_snapshots"):
        PAGE.write_text(f"{head}{mark}{made}{end}{tail}", encoding="utf-8")
    assert f"{mark}{made}{end}" in PAGE.read_text(encoding="utf-8"), made


def table(found: Mapping[Client, Run]) -> str:
    lines = [
        "| client | configured by | its file | uses the index | restored exactly | ignores |",
        "|---|---|---|---|---|---|",
    ]
    for row, one in found.items():
        by = "nothing" if row.inert else f"`clients apply {row.apply}{_scope(row)}`"
        where = (
            one.where.replace("`work/", "`").replace("`.config/", "`~/.config/").replace("`machine/", "`/etc/xdg/")
            or "none"
        )
        ignored = ", ".join(FILES[name] for name in row.ignores)
        cells = (row.title.format(row.version), by, where, "no" if row.inert else "yes", "yes", ignored)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scope(row: Client) -> str:
    return "" if row.scope == "user" else f" --scope {row.scope}"


# Lock files


def direct_and_ours(
    place: Place, command: Callable[[str], tuple[str, ...]], name: str, variable: str = ""
) -> tuple[Path, bytes]:
    """The lock file made from us, and what it is when made from the upstream."""
    texts = []
    for index in (place.lab.upstream.simple_url, place.lab.url):
        if variable == "UV_DEFAULT_INDEX" and index != place.lab.url:
            index = index.rstrip("/")  # as uv has its own default
        done = place.run(*command(index), **({variable: index} if variable else {}))
        assert done.returncode == 0, done.stdout + done.stderr
        texts.append((place.work / name).read_bytes())
        (place.work / name).unlink()
        shutil.rmtree(place.home / ".cache", ignore_errors=True)
    assert texts[0] != texts[1]
    (place.work / name).write_bytes(texts[1])
    return place.work / name, texts[0]


LOCKS: Mapping[str, tuple[str, str, str, Callable[[Place, str], tuple[str, ...]]]] = {
    "uv": (
        "uv",
        "uv.lock",
        "UV_DEFAULT_INDEX",
        lambda place, index: ("uv", "lock", "--quiet", "--python", sys.executable),
    ),
    "pdm": ("pdm", "pdm.lock", "PDM_PYPI_URL", lambda place, index: ("pdm", "lock", "--static-urls")),
    "pip lock": (
        "pip26",
        "pylock.toml",
        "",
        lambda place, index: (place.lab.packagers.python("pip26"), "-m", "pip", "lock", "-i", index, place.name),
    ),
    "pip-tools": (
        "pip-tools",
        "requirements.txt",
        "",
        lambda place, index: ("pip-compile", "--no-header", "--generate-hashes", "-i", index, "-o", "requirements.txt"),
    ),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_repaired_lock_file_is_the_one_made_without_us(lab: Lab, name: str) -> None:
    program, file, variable, command = LOCKS[name]
    place = Place.make(lab, program)
    path, direct = direct_and_ours(place, lambda index: command(place, index), file, variable)
    assert place.deployer("locks", "check", file)["code"] == 9
    assert place.deployer("locks", "repair", "--url", lab.url)["code"] == 0
    assert path.read_bytes() == direct
    assert place.deployer("locks", "check")["code"] == 0
    if name == "uv":
        done = place.run(
            "uv", "lock", "--check", "--python", sys.executable, UV_DEFAULT_INDEX=lab.upstream.simple_url.rstrip("/")
        )
        assert done.returncode == 0, done.stderr


def test_private_packages_are_named_and_left(lab: Lab) -> None:
    place = Place.make(lab, "uv")
    assert upload(lab.server, lab.server.auth, "root/dev", make_wheel("acme-secret", "1.0")) == 200
    text = PROJECT.format(f'{place.name}", "acme-secret')
    (place.work / "pyproject.toml").write_text(text)
    assert place.run("uv", "lock", "--python", sys.executable, UV_DEFAULT_INDEX=lab.url).returncode == 0
    repaired = place.deployer("locks", "repair", "--url", lab.url)
    assert repaired["code"] == 0 and "acme-secret: it is a private package of root/dev" in str(repaired["warnings"])
    assert place.deployer("locks", "check")["code"] == 9
    assert place.deployer("locks", "check", "--allow", "root/dev")["code"] == 0
    lines = [line for line in (place.work / "uv.lock").read_text().splitlines() if f":{lab.server.port}/" in line]
    assert len(lines) == 2 and any("acme_secret-1.0" in line for line in lines)


def test_a_source_of_poetry_is_named_and_left(lab: Lab) -> None:
    """The lock file needs the name that the project gives to the upstream."""
    place = Place.make(lab, "poetry")
    assert place.deployer("clients", "apply", "poetry", "--scope", "project", "--url", lab.url)["code"] == 0
    assert place.run("poetry", "lock").returncode == 0
    before = (place.work / "poetry.lock").read_bytes()
    repaired = place.deployer("locks", "repair", "--url", lab.url)
    assert repaired["code"] == 9 and "poetry lock" in str(repaired["error"])
    assert (place.work / "poetry.lock").read_bytes() == before


def test_the_hook_stops_a_commit(lab: Lab) -> None:
    """By the real pre-commit, with our program instead of an installation of it."""
    place = Place.make(lab, "uv")
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    hook |= {"language": "system", "entry": hook["entry"].replace("deployer", f"{sys.executable} -m deployer.cli", 1)}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (place.work / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (place.work / "uv.lock").write_text(f'source = {{ registry = "{lab.url}" }}\n')
    assert place.run("git", "init", "--quiet").returncode == 0
    assert place.run("git", "add", "uv.lock").returncode == 0
    hooked = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = place.run(*hooked, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and "uv.lock:1" in done.stdout, done.stdout + done.stderr
    (place.work / "uv.lock").write_text('source = { registry = "https://packages.example.com/simple" }\n')
    assert place.run("git", "add", "uv.lock").returncode == 0
    done = place.run(*hooked, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("conda") is None, reason="there is no conda here, and no package registry has one")
def test_the_pip_step_of_conda_uses_the_index(lab: Lab) -> None:
    place = Place.make(lab, "pip26")
    place.deployer("clients", "apply", "pip", "--url", lab.url)
    words_ = ("run", "-n", "base", "python", "-m", "pip", "install", "--no-deps", "--target", "target", place.name)
    done = place.run(str(shutil.which("conda")), *words_)
    assert done.returncode == 0 and place.name in lab.used(), done.stderr
