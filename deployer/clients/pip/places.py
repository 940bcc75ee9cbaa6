"""Where pip's configuration files are on this host, and where what we keep about them is."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from deployer.errors import ClientFileError
from deployer.host.state_dir import state_root

SCOPES = ("user", "global", "site", "venv")
_MACOS = Path("Library/Application Support/pip")


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


def target(scope: str, *, env: Mapping[str, str], home: Path | None = None, platform: str = sys.platform) -> Path:
    """The file that ``scope`` means: ``user``, ``global`` (this system), ``venv`` (the active one), or ``site``
    (the python that ``pip`` runs with: the active venv, else the one on PATH).

    Raises ClientFileError when there is no active venv, or it can't be told which python that is.
    """
    match scope:
        case "user":
            return user_file(env, home=home or home_of(env), platform=platform)
        case "global":
            return global_files(env, home=home or home_of(env), platform=platform)[-1]
        case "venv":
            folder = env.get("VIRTUAL_ENV", "")
            if not folder or not (Path(folder) / "pyvenv.cfg").is_file():
                raise ClientFileError("no venv is active", hint="activate one, or choose --scope user")
            return Path(folder) / "pip.conf"
        case "site":
            prefix = active_prefix(env)
            if prefix is None:
                raise ClientFileError("it can't be told which python pip runs with", hint="choose --scope user")
            return prefix / "pip.conf"
    raise ClientFileError(f"there is no scope {scope!r}", hint=f"one of {', '.join(SCOPES)}")
