"""The files that options of plugins name: with their secrets, where the server reads them and nobody else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deployer.deployment.secret_refs import resolve
from deployer.errors import ProfileError
from deployer.files import make_private, replacing
from deployer.host.plugins import OPTIONS, of_option
from deployer.host.state_dir import state_dir
from deployer.operations.apply import undo
from deployer.plan.plugins import PluginPlan


def contents(plugins: PluginPlan | None, *, env: Mapping[str, str], home: Path) -> dict[str, bytes]:
    """The content of each file, by its option. Raises ProfileError."""
    found: dict[str, bytes] = {}
    for name, one in plugins.contents.items() if plugins is not None else ():
        content, where = of_option(one.file), f"server.option_files.{name}"
        if one.secrets:
            tree = _tree(content, where=f"{where}: {one.file}")
            for key, reference in one.secrets.items():
                secret = resolve(reference, where=f"{where}.secrets.{key}", env=env, home=home)
                _put(tree, key, secret.reveal(), where=f"{where}.secrets.{key}")
            content = json.dumps(tree, indent=1).encode() + b"\n"  # JSON is YAML
        found[name] = content
    return found


def _tree(content: bytes, *, where: str) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(content)
    except yaml.YAMLError:
        tree = None
    if not isinstance(tree, dict):
        raise ProfileError(f"{where} is not a YAML mapping", hint="correct the file, or remove secrets")
    return tree


def _put(tree: dict[str, Any], key: str, value: str, *, where: str) -> None:
    *above, last = key.split(".")
    for word in above:
        below = tree.get(word)
        if not isinstance(below, dict):
            raise ProfileError(f"{where}: the file has no key {word}", hint="name a key by its path: a.b.password")
        tree = below
    tree[last] = value


def write(plugins: PluginPlan | None, files: Mapping[str, bytes], rollback: ExitStack) -> bool:
    """Write the files; return whether others stood there, which a running server has read.

    Their directory is closed to other users. The files are not: in a container the server may have another uid.
    """
    if plugins is None or not files:
        return False
    directory = plugins.files
    make_private(directory.parent)
    before = {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else None
    if before == dict(files):
        return False
    undo(rollback, _have, directory, before)
    _have(directory, files)
    return before is not None


def forget(name: str) -> None:
    """Remove the files of a deployment whose server is gone: they may hold secrets."""
    shutil.rmtree(state_dir(name) / OPTIONS, ignore_errors=True)


def _have(directory: Path, files: Mapping[str, bytes] | None) -> None:
    """Have exactly ``files`` in the directory; None: have no directory."""
    if files is None:
        shutil.rmtree(directory, ignore_errors=True)
        return
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    for name, content in files.items():
        with replacing(directory / name, exact=True) as stream:
            stream.write(content)
    for path in directory.iterdir():
        if path.name not in files:
            path.unlink()
