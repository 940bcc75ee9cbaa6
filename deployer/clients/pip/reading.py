"""Read what pip on this host is configured to do, without the 300 ms of starting pip.

The order and the exceptions are those of pip's ``_internal/configuration.py``: files system-wide, of the user, of the
environment, then ``PIP_CONFIG_FILE``, then ``PIP_*`` variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deployer.clients import backups, files
from deployer.clients.client import Account
from deployer.clients.pip import grammar
from deployer.clients.pip.config import ENVIRONMENT, Entry, Layer, PipConfig, entries_of, same_file
from deployer.clients.pip.places import active_prefix, global_files, legacy_file, user_file
from deployer.clients.text import decode
from deployer.errors import ClientFileError

_NOT_OPTIONS = frozenset({"version", "help"})


def read_config(account: Account, *, prefix: Path | None = None) -> PipConfig:
    """What the pip of ``account`` is configured to do. Nothing is run, nothing raised.

    ``prefix``: that pip's ``sys.prefix``, found from the variables unless given.
    """
    env, prefix = account.env, prefix or active_prefix(account.env)
    chosen = env.get("PIP_CONFIG_FILE")
    users = (legacy_file(account), user_file(account))
    sites = (prefix / "pip.conf",) if prefix else ()
    read = (*global_files(account), *users, *sites)
    ignored: dict[Path, str] = {}
    if chosen == os.devnull:
        ignored = dict.fromkeys(read, f"PIP_CONFIG_FILE is {os.devnull}")
    elif chosen and _is_there(Path(chosen)):
        ignored = {path: f"PIP_CONFIG_FILE is {chosen}" for path in users if not same_file(path, Path(chosen))}
        read = (*(path for path in read if path not in users), Path(chosen))
    layers = [_file_layer(path, account.state) for path in read if path not in ignored]
    return PipConfig(layers=(*layers, _environment_layer(env)), ignored=ignored)


def _file_layer(path: Path, state: Path) -> Layer:
    # pip ignores a file that it can't open, and fails on one that it can't parse.
    try:
        content = files.read_bytes(path)
    except ClientFileError:
        return Layer(path=path)
    if content is None:
        return Layer(path=path)
    try:
        entries = entries_of(decode(content), path, source=str(path))
    except ClientFileError as error:
        return Layer(path=path, problem=f"no pip command works: {path} is {error.message}")
    backup = _backup(path, state)
    if backup is None:
        return Layer(path=path, entries=entries)
    former = decode(backup.original or b"")
    return Layer(
        path=path,
        entries=entries,
        former=entries_of(former, path, source=f"{path} before deployer"),
        written=frozenset(values["index-url"] for values in backup.values if "index-url" in values),
    )


def _backup(path: Path, state: Path) -> backups.Backup | None:
    try:
        return backups.load(path.resolve(), state=state)
    except (ClientFileError, OSError, RuntimeError):
        return None  # undoing reports it; reading goes on without it


def _environment_layer(env: Mapping[str, str]) -> Layer:
    names = [name for name in env if name.startswith("PIP_") and name[4:].lower() not in _NOT_OPTIONS]
    return Layer(
        path=None,
        entries=tuple(
            Entry(section=ENVIRONMENT, name=grammar.normalize(name[4:].lower()), value=env[name], source=name)
            for name in names
        ),
    )


def _is_there(path: Path) -> bool:
    """As ``os.path.exists``, which pip uses: a file in a closed directory does not exist."""
    try:
        return path.exists()
    except OSError:
        return False
