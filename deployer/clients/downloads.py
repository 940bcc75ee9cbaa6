"""Downloads by the installers of this host, run as their user runs them, except that they cache nothing."""

from __future__ import annotations

import re
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployer.clients.client import Account, Client, ClientSettings
from deployer.clients.installers import uv_program
from deployer.clients.registry import CLIENT_FILES, CLIENTS
from deployer.clients.variables import past_the_proxy
from deployer.host.gather import proxies
from deployer.host.runner import ProcessFailed, Runner
from deployer.protocol import OWN_PYTHON

_UV_INDEXES = ("index", "index-url", "extra-index-url", "find-links", "no-index")


@dataclass(frozen=True, order=True)
class Release:
    """What a wheel is of: the normalised name of the project, and the version as it stands there."""

    name: str
    version: str

    @classmethod
    def of(cls, filename: str) -> Release:
        """Of the name of a wheel, or of a ``.dist-info`` directory."""
        name, version, *_ = filename.removesuffix(".whl").removesuffix(".dist-info").split("-")
        return cls(re.sub(r"[-_.]+", "-", name).lower(), version)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Download:
    """One run of an installer: its seconds, what it has downloaded, and the last lines that it printed."""

    seconds: float
    releases: tuple[Release, ...]
    failed: bool
    said: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Installer:
    """An installer of this host. ``configured``: its own files name the index; otherwise it gets variables.

    ``variables``: those, besides the ones of the user.
    """

    name: str
    program: tuple[str, ...]
    configured: bool
    variables: Mapping[str, str]

    def start(self) -> float:
        """Seconds that it takes to start and to do nothing."""
        started = time.perf_counter()
        Runner().run((*self.program, "--version"), timeout=60)
        return time.perf_counter() - started

    def download(self, wanted: Sequence[str], room: Path) -> Download:
        """Download ``wanted``, the last words of a command line, into the empty directory ``room``."""
        target = room / "target"
        words = _DOWNLOADS[self.name]
        runner = Runner({**self.variables, "TMPDIR": str(room), "NO_COLOR": "1"})
        started = time.perf_counter()
        said: list[str] = []
        failed = False
        try:
            said.extend(runner.stream((*self.program, *words, str(target), *wanted)))
        except ProcessFailed:
            failed = True
        seconds = time.perf_counter() - started
        found = [path.name for path in target.iterdir()] if target.is_dir() else []
        releases = sorted({Release.of(name) for name in found if name.endswith((".whl", ".dist-info"))})
        return Download(seconds=seconds, releases=tuple(releases), failed=failed, said=tuple(said[-5:]))


def installers(settings: ClientSettings, account: Account) -> tuple[Installer, ...]:
    """pip and uv, as far as they are installed here."""
    found = []
    for client in CLIENTS:
        program = _PROGRAMS.get(client.name, lambda: None)()
        if program is None:
            continue
        configured = _is_configured(client, settings, account)
        variables: dict[str, str] = {}
        if not configured:
            variables |= client.variables(settings)
            if proxies(account.env):
                variables |= past_the_proxy(settings, account.env)
        found.append(Installer(name=client.name, program=program, configured=configured, variables=variables))
    return tuple(found)


def _is_configured(client: Client, settings: ClientSettings, account: Account) -> bool:
    """Whether the client's files name the index; that a variable overrides them is what a verification finds out."""
    files = {file.name: file for file in CLIENT_FILES.values()}.get(client.name)
    if files is None:
        return False
    prefix = f"{client.name.upper()}_"
    plain = {name: value for name, value in account.env.items() if not name.startswith(prefix)}
    named = files.read(replace(account, env=plain)).effective(files.index_key).value
    return named.rstrip("/") == settings.index_url.rstrip("/")


def _pip() -> tuple[str, ...]:
    program = shutil.which("pip") or shutil.which("pip3")
    return (program,) if program else (*OWN_PYTHON, "-m", "pip")


def _uv() -> tuple[str, ...] | None:
    program = uv_program()
    return None if program is None else (program,)


_PROGRAMS = {"pip": _pip, "uv": _uv}
_DOWNLOADS = {
    "pip": (
        *("download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"),
        *("--only-binary", ":all:", "--dest"),
    ),
    "uv": ("pip", "install", "--quiet", "--no-cache", "--no-build", "--python", sys.executable, "--target"),
}
"""Words after the program, and before the directory; wheels only, since a source distribution runs code."""


def bypasses(installer: Installer, settings: ClientSettings, account: Account, here: Path) -> tuple[str, ...]:
    """What on this host leads the installer past the index, one sentence each. ``here``: its working directory."""
    found = [line for client in CLIENTS if client.name == installer.name for line in client.risks(account)]
    for file in CLIENT_FILES.values():
        if file.name == installer.name:
            effective = file.read(account).effective(file.index_key)
            ours = installer.variables or effective.value.rstrip("/") == settings.index_url.rstrip("/")
            if not ours and effective.source:
                found.append(f"{effective.source} names another index")
    if installer.name == "uv":
        found += [f"{path} has its own {key}" for path, key in _uv_files(settings, account, here)]
    return tuple(found)


def _uv_files(settings: ClientSettings, account: Account, here: Path) -> list[tuple[Path, str]]:
    """uv's files that name other indexes than ours, with the key (uv's documentation, "Configuration files")."""
    if account.env.get("UV_NO_CONFIG"):
        return []
    config = Path(account.env.get("XDG_CONFIG_HOME") or account.home / ".config")
    chosen = account.env.get("UV_CONFIG_FILE")
    projects = [(above / name) for above in (here, *here.parents) for name in ("uv.toml", "pyproject.toml")]
    paths = [Path(chosen)] if chosen else [*projects, config / "uv/uv.toml", Path("/etc/uv/uv.toml")]
    return [(path, key) for path in paths for key in _uv_keys(path, settings.index_url)]


def _uv_keys(path: Path, ours: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, ValueError):
        return []
    if ours in text:  # what deployer wrote
        return []
    if path.name == "pyproject.toml":
        values = values.get("tool", {}).get("uv", {})
    pip = values.get("pip", {})
    return [key for key in _UV_INDEXES if key in values or (isinstance(pip, dict) and key in pip)]
