"""The lock of a profile's plugins, and the files that their options name, as they are on this host."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from deployer.host.state_dir import state_dir
from deployer.plan.facts import PluginFacts
from deployer.plan.plugins import named
from deployer.profile.models import Profile
from deployer.resources import profiles_dir

ENVIRONMENTS, OPTIONS = "plugins", "options"
"""Directories of a deployment: what a process gets from a lock, and files that options name."""
MOST = 1 << 20
"""Bytes of a lock, and of a file of an option."""


def lock_file(files: Sequence[Path], name: str) -> Path:
    """The lock of a profile: beside its own file, or for one that is shipped, with the deployment ``name``."""
    if files and profiles_dir() not in files[0].resolve().parents:
        return files[0].with_name(f"{files[0].stem}.plugins.lock")
    return state_dir(name) / "plugins.lock"


def plugin_facts(profile: Profile, files: Sequence[Path], *, name: str) -> PluginFacts | None:
    """What is known of the plugins of ``profile``, whose own file is the first of ``files``."""
    if not named(profile):
        return None
    path = lock_file(files, name)
    lock = _read(path).decode("utf-8", errors="replace")
    python = f"{sys.implementation.cache_tag}\0{profile.server.version}\0{lock}"
    return PluginFacts(
        profile=files[0],
        lock=lock,
        lock_file=path,
        environment=state_dir(name) / ENVIRONMENTS / hashlib.sha256(python.encode()).hexdigest()[:12],
        files=state_dir(name) / OPTIONS,
        digests={key: _digest(of_option(one.file)) for key, one in profile.server.option_files.items()},
    )


def of_option(file: str) -> bytes:
    """The content of a file that an option names; empty when it can't be read."""
    return _read(Path(file).expanduser())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MOST)
    except OSError:
        return b""


def _digest(content: bytes) -> str:
    """A digest that takes long: the file may hold a password, and others on this host see what is made of it."""
    if not content:
        return ""
    return hashlib.scrypt(content, salt=b"deployer", n=1 << 14, r=8, p=1, dklen=8).hex()
