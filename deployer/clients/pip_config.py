"""What pip on this host will do, read the way pip reads it, without the 300 ms that starting pip costs.

The order and the exceptions are those of pip's ``_internal/configuration.py`` and ``cli/parser.py``: files system-wide,
of the user, of the environment, then ``PIP_CONFIG_FILE``, then ``PIP_*`` variables; and over that order, a command's
own section (``[install]``) wins over ``[global]`` of any file.
"""

from __future__ import annotations

import math
import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer.clients import backups, files, pip_text
from deployer.errors import ClientFileError
from deployer.secrets import mask_url
from deployer.state import state_root

ENVIRONMENT = ":env:"
_NOT_OPTIONS = frozenset({"version", "help"})
_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})
_MACOS = Path("Library/Application Support/pip")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One setting: ``section`` as in the file, or :data:`ENVIRONMENT`; ``source`` says where, for people."""

    section: str
    name: str
    value: str = field(repr=False)
    source: str
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file, or the environment. ``problem``: why every pip command stops at it.

    ``former``: its settings as they were before deployer; ``written``: the values that deployer gave to it.
    """

    path: Path | None
    entries: tuple[Entry, ...] = ()
    problem: str = ""
    former: tuple[Entry, ...] = ()
    written: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PipConfig:
    """All that pip reads here, the weakest first. ``ignored``: files that it does not read now, and why."""

    layers: tuple[Layer, ...]
    ignored: Mapping[Path, str] = field(default_factory=dict)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for layer in self.layers for entry in layer.entries)

    def with_file(self, path: Path, text: str) -> PipConfig:
        """The configuration as it will be with ``text`` in the file ``path``."""
        entries = _entries(text, path, source=str(path))
        layers = (replace(e, entries=entries, problem="") if _is(e.path, path) else e for e in self.layers)
        return replace(self, layers=tuple(layers))

    def items(self) -> dict[str, str]:
        """``section.name`` to value, as ``pip config list`` has it."""
        return {f"{entry.section}.{entry.name}": entry.value for entry in self.entries}

    def effective(self, key: str, *, command: str = "install") -> tuple[str, str]:
        """The value that ``pip <command>`` takes for ``key``, and where it is from; two empty strings for none."""
        winner = resolve(self.entries, key, command)
        return (winner.value, winner.source) if winner else ("", "")

    def value(self, key: str) -> str:
        return self.effective(key)[0]

    def masks(self, key: str, path: Path) -> list[str]:
        """What keeps pip from using the value of ``key`` in the file ``path``, one sentence each; none: it is used.

        Another source with the same value hides nothing.
        """
        if path in self.ignored:
            return [f"pip does not read {path}: {self.ignored[path]}"]
        ours = [entry for entry in self.entries if _is(entry.path, path) and _sets(entry, key, pip_text.SECTION)]
        others = [e for e in self.entries if e not in ours and any(_sets(e, key, s) for s in _sections("install"))]
        if not ours:
            return []
        hiding = [e for e in others if e.value != ours[-1].value and self._hides(e, ours, key)]
        return [f"{entry.source} {_shown(entry)} wins over {key} in {path}" for entry in hiding]

    def _hides(self, other: Entry, ours: list[Entry], key: str) -> bool:
        pair = [entry for entry in self.entries if entry is other or entry in ours]
        return resolve(pair, key, "install") not in ours

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes pip install from elsewhere than the one index, or not work at all."""
        found = [layer.problem for layer in self.layers if layer.problem]
        for key, means in _RISKS.items():
            winner = resolve(self.entries, key, "install")
            if winner and (key != "no-index" or winner.value.lower() in _TRUE):
                found.append(f"{winner.source} {_shown(winner)}: {means}")
        return tuple(found)


_RISKS: Mapping[str, str] = {
    "extra-index-url": "pip asks that index too and takes the higher version, whoever uploaded it there",
    "find-links": "pip takes files from there too",
    "no-index": "pip asks no index at all",
}


def _shown(entry: Entry) -> str:
    # Only addresses and numbers are worth showing; they are shown without what is secret in them.
    name = "" if entry.section == ENVIRONMENT else f"[{entry.section}] {entry.name} "
    return f"{name}({mask_url(entry.value)})" if entry.value else f"{name}(empty)"


def _is(one: Path | None, other: Path) -> bool:
    try:
        return one is not None and (one == other or one.resolve() == other.resolve())
    except (OSError, RuntimeError):  # a link to itself, which pip passes over
        return False


def _is_there(path: Path) -> bool:
    """As ``os.path.exists``, which pip asks: what lies in a closed directory is not there."""
    try:
        return path.exists()
    except OSError:
        return False


def _sections(command: str) -> tuple[str, ...]:
    return (pip_text.SECTION, command, ENVIRONMENT)


def _sets(entry: Entry, key: str, section: str) -> bool:
    return entry.section == section and entry.name in pip_text.OPTIONS.get(key, frozenset({key}))


def resolve(entries: Iterable[Entry], key: str, command: str) -> Entry | None:
    """The setting of ``key`` that wins, of ``entries`` with the weakest first (pip's ``_update_defaults``).

    An empty value hides a weaker one of the same section and name, and is then ignored itself.
    """
    merged: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        merged[entry.section, entry.name] = entry  # a key keeps its first place, as in pip's dict
    winner = None
    for section in _sections(command):
        for entry in merged.values():
            if entry.value and _sets(entry, key, section):
                winner = entry
    return winner


def read_config(
    env: Mapping[str, str],
    *,
    home: Path | None = None,
    prefix: Path | None = None,
    state: Path | None = None,
    platform: str = sys.platform,
) -> PipConfig:
    """What the pip that a user gets under ``env`` is configured to do. Nothing is run, nothing raised.

    ``home`` and ``prefix`` (that pip's ``sys.prefix``) are found from ``env`` unless given; ``state``: where the
    backups of client files are.
    """
    home, prefix = home or home_of(env), prefix or active_prefix(env)
    state = state or client_state()
    chosen = env.get("PIP_CONFIG_FILE")
    users = (home / ".pip" / "pip.conf", user_file(env, home=home, platform=platform))
    sites = (prefix / "pip.conf",) if prefix else ()
    read = (*global_files(env, home=home, platform=platform), *users, *sites)
    ignored: dict[Path, str] = {}
    if chosen == os.devnull:
        ignored = dict.fromkeys(read, f"PIP_CONFIG_FILE is {os.devnull}")
    elif chosen and _is_there(Path(chosen)):
        ignored = {path: f"PIP_CONFIG_FILE is {chosen}" for path in users if not _is(path, Path(chosen))}
        read = (*(path for path in read if path not in users), Path(chosen))
    layers = [_file_layer(path, state) for path in read if path not in ignored]
    return PipConfig(layers=(*layers, _environment_layer(env)), ignored=ignored)


def client_state() -> Path:
    """The private folder of backups and locks of client files."""
    return state_root() / "clients"


def home_of(env: Mapping[str, str]) -> Path:
    """The home directory as ``os.path.expanduser`` has it."""
    if "HOME" in env:
        return Path(env["HOME"] or "/")
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def user_file(env: Mapping[str, str], *, home: Path, platform: str = sys.platform) -> Path:
    """The user's pip.conf (the stronger of the two that pip knows)."""
    if platform == "darwin":
        folder = home / _MACOS
        return (folder if folder.is_dir() else home / ".config" / "pip") / "pip.conf"
    base = env.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.strip() else home / ".config") / "pip" / "pip.conf"


def global_files(env: Mapping[str, str], *, home: Path, platform: str = sys.platform) -> tuple[Path, ...]:
    """The files of the whole system, the weakest first; the last is the one to write."""
    if platform == "darwin":
        return (Path("/") / _MACOS / "pip.conf",)
    base = env.get("XDG_CONFIG_DIRS", "")
    folders = (base if base.strip() else "/etc/xdg").split(os.pathsep)
    return (*(_expanded(folder, home) / "pip" / "pip.conf" for folder in folders), Path("/etc/pip.conf"))


def _expanded(folder: str, home: Path) -> Path:
    return home / folder[2:] if folder.startswith("~/") else Path(folder)


def active_prefix(env: Mapping[str, str]) -> Path | None:
    """``sys.prefix`` of the pip that ``env`` leads to: the active venv, else of the ``pip`` (or python3) on PATH.

    ``None`` when that can't be told without running it (a wrapper script such as a shim).
    """
    if env.get("VIRTUAL_ENV"):
        return Path(env["VIRTUAL_ENV"])
    for name in ("pip", "python3"):
        found = shutil.which(name, path=env.get("PATH", os.defpath))
        if found is None:
            continue
        prefix = Path(found).absolute().parent.parent
        if (prefix / "pyvenv.cfg").is_file():
            return prefix
        real = Path(found).resolve().parent
        if name == "python3" and real.name == "bin" and any(real.parent.glob("lib/python3.*/os.py")):
            return real.parent
    return None


def _file_layer(path: Path, state: Path) -> Layer:
    # What it can't open, pip passes over; what it can't parse, it stops at.
    try:
        content = files.read_bytes(path)
    except ClientFileError:
        return Layer(path=path)
    if content is None:
        return Layer(path=path)
    try:
        entries = _entries(pip_text.decode(content), path, source=str(path))
    except ClientFileError as error:
        return Layer(path=path, problem=f"no pip command works: {path} is {error.message}")
    backup = _backup(path, state)
    if backup is None:
        return Layer(path=path, entries=entries)
    former = pip_text.decode(backup.original or b"")
    return Layer(
        path=path,
        entries=entries,
        former=_entries(former, path, source=f"{path} before deployer"),
        written=frozenset(values["index-url"] for values in backup.values if "index-url" in values),
    )


def _backup(path: Path, state: Path) -> backups.Backup | None:
    try:
        return backups.load(path.resolve(), state=state)
    except (ClientFileError, OSError, RuntimeError):
        return None  # whoever undoes it is told; reading goes on without it


def _entries(text: str, path: Path, *, source: str) -> tuple[Entry, ...]:
    return tuple(
        Entry(section=section, name=pip_text.normalize(name), value=value, source=source, path=path)
        for section, items in pip_text.parse(text).items()
        for name, value in items.items()
    )


def _environment_layer(env: Mapping[str, str]) -> Layer:
    names = [name for name in env if name.startswith("PIP_") and name[4:].lower() not in _NOT_OPTIONS]
    return Layer(
        path=None,
        entries=tuple(
            Entry(section=ENVIRONMENT, name=pip_text.normalize(name[4:].lower()), value=env[name], source=name)
            for name in names
        ),
    )


def upstream(config: PipConfig, *, ours: Callable[[str], bool]) -> Entry | None:
    """The index that this host's pip installs from when deployer is left out of it; ``None``: pip's own default.

    An address that is ``ours``, or that deployer wrote, counts as what was in its place before. What is no web
    address (a folder of files) can't be mirrored and is passed over.
    """
    found: list[Entry] = []
    for layer in config.layers:
        for entry in layer.entries:
            if not (ours(entry.value) or entry.value in layer.written):
                found.append(entry)
            else:
                found.extend(e for e in layer.former if (e.section, e.name) == (entry.section, entry.name))
    usable = [e for e in found if e.value.startswith(("https://", "http://")) and not ours(e.value)]
    return resolve(usable, "index-url", "install")


def build_settings(config: PipConfig, *, ours: Callable[[str], bool]) -> dict[str, Any]:
    """What a pip inside an image build needs to install as this host's does; empty strings for what is not set.

    Keys: ``index_url``, ``cert`` (a path), ``proxy``, ``timeout`` (whole seconds, or ``None``).
    """
    index = upstream(config, ours=ours)
    return {
        "index_url": index.value if index else "",
        "cert": config.value("cert"),
        "proxy": config.value("proxy"),
        "timeout": _seconds(config.value("timeout")),
    }


def _seconds(text: str) -> int | None:
    """pip's time-out, which may be a fraction, as whole seconds."""
    try:
        return max(1, math.ceil(float(text)))
    except (ValueError, OverflowError):
        return None
