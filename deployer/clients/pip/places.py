"""Where pip's configuration files are on this host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deployer.clients.client import Account
from deployer.errors import ClientFileError

_MACOS = Path("Library/Application Support/pip")


def legacy_file(account: Account) -> Path:
    """The user's pip.conf of old, which is weaker than :func:`user_file`."""
    return account.home / ".pip" / "pip.conf"


def user_file(account: Account) -> Path:
    """The user's pip.conf."""
    default = account.home / ".config"
    if account.platform == "darwin":
        folder = account.home / _MACOS
        return (folder if folder.is_dir() else default / "pip") / "pip.conf"
    base = account.env.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.strip() else default) / "pip" / "pip.conf"


def global_files(account: Account) -> tuple[Path, ...]:
    """The files of the whole system, the weakest first; the last is the one to write."""
    if account.platform == "darwin":
        return (Path("/") / _MACOS / "pip.conf",)
    base = account.env.get("XDG_CONFIG_DIRS", "")
    folders = (base if base.strip() else "/etc/xdg").split(os.pathsep)
    return (*(_expanded(folder, account.home) / "pip" / "pip.conf" for folder in folders), Path("/etc/pip.conf"))


def _expanded(folder: str, home: Path) -> Path:
    return home / folder[2:] if folder.startswith("~/") else Path(folder)


def active_prefix(env: Mapping[str, str]) -> Path | None:
    """``sys.prefix`` of the pip that ``env`` leads to: the active venv, else of the ``pip`` (or python3) on PATH.

    ``None`` when only running it could tell (a wrapper script such as a shim).
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


def target(scope: str, account: Account) -> Path:
    """The file of ``scope``: ``user``, ``global`` (this system), ``venv`` (the active one), or ``site`` (the python
    that ``pip`` runs with: the active venv, else the one on PATH).

    Raises ClientFileError when no venv is active, or that python is unknown.
    """
    match scope:
        case "user":
            return user_file(account)
        case "global":
            return global_files(account)[-1]
        case "venv":
            folder = account.env.get("VIRTUAL_ENV", "")
            if not folder or not (Path(folder) / "pyvenv.cfg").is_file():
                raise ClientFileError("no venv is active", hint="activate one, or choose --scope user")
            return Path(folder) / "pip.conf"
    prefix = active_prefix(account.env)
    if prefix is None:
        raise ClientFileError("the python that pip runs with is unknown", hint="choose --scope user")
    return prefix / "pip.conf"
