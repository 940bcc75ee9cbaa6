"""What clients on this host are configured to do that matters to a tunnel: index, proxy and trusted roots."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.clients.client import Account
from deployer.clients.pip.config import PipConfig
from deployer.clients.pip.reading import read_config

UV, PDM, POETRY = "uv", "pdm", "poetry"


@dataclass(frozen=True)
class Setting:
    """A value that a client reads. ``source``: the file and key, or the variable, as users see it.

    ``ours``: whether a variable, and not a file, has it, so that we can replace it; ``project``: whether it is of the
    project, where a lock file is to follow it.
    """

    value: str
    source: str
    variable: bool = False
    project: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings by client: ``indexes``, the one that names its main index; ``extra``, those that name further ones.
    ``proxies`` and ``roots``: keys of files that beat every variable."""

    indexes: Mapping[str, Setting]
    extra: tuple[Setting, ...]
    proxies: tuple[Setting, ...]
    roots: tuple[Setting, ...]
    pip_proxy: str = ""
    pip_cert: str = ""


def read(account: Account, directory: Path) -> Settings:
    """What clients read when they run in ``directory``. Raises nothing: what a client can't read, it reports itself."""
    pip, uv = read_config(account), list(_uv(account, directory))
    pdm = list(_pdm(account, directory))
    poetry = list(_poetry(account, directory))
    env = account.env
    indexes = {
        "pip": _of_pip(pip, "index-url"),
        UV: _first(
            *(_variable(env, name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
            *(_uv_index(document, path, project=project) for path, document, project in uv),
        ),
        PDM: _first(_variable(env, "PDM_PYPI_URL"), *(_key(path, document, "pypi", "url") for path, document in pdm)),
        POETRY: _first(
            _variable(env, "POETRY_PYPI_MIRROR_URL"),
            _variable(env, "POETRY_PLUGINS_PYPI_MIRROR_URL"),
            *(_key(path, document, "plugins", "pypi_mirror", "url") for path, document in poetry),
        ),
    }
    extra = [_of_pip(pip, "extra-index-url")]
    extra += [_variable(env, name) for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL")]
    proxies = [
        _key(path, document, key) for path, document, _ in uv for key in ("https-proxy", "http-proxy", "no-proxy")
    ]
    roots = [_key(path, document, "pypi", "ca_certs") for path, document in pdm]
    roots += [
        _key(path, document, "certificates", name, "cert")
        for path, document in poetry
        for name in _table(document, "certificates")
    ]
    return Settings(
        indexes={client: setting for client, setting in indexes.items() if setting is not None},
        extra=tuple(setting for setting in extra if setting is not None),
        proxies=tuple(setting for setting in proxies if setting is not None),
        roots=tuple(setting for setting in roots if setting is not None),
        pip_proxy=pip.effective("proxy").value,
        pip_cert=pip.effective("cert").value,
    )


def _of_pip(pip: PipConfig, key: str) -> Setting | None:
    value, source = pip.effective(key)
    is_variable = source.startswith("PIP_")
    return Setting(value, source if is_variable else f"{key} of {source}", is_variable) if value else None


def _variable(env: Mapping[str, str], name: str) -> Setting | None:
    return Setting(env[name], name, True) if env.get(name) else None


def _first(*found: Setting | None) -> Setting | None:
    return next((setting for setting in found if setting is not None), None)


def _table(document: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _key(path: Path, document: Any, *keys: str) -> Setting | None:
    """A key of a file; pdm's and poetry's files allow ``a.b`` as one key, too."""
    *above, last = keys
    value = _table(document, *above).get(last) or _table(document).get(".".join(keys))
    if value in (None, "", [], False):
        return None
    return Setting(value if isinstance(value, str) else repr(value), f"{'.'.join(keys)} of {path}")


def _uv_index(document: Any, path: Path, *, project: bool) -> Setting | None:
    listed = _table(document).get("index")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("default") is True and isinstance(one.get("url"), str):
            return Setting(one["url"], f"the default index of {path}", project=project)
    found = _key(path, document, "index-url") or _key(path, document, "pip", "index-url")
    return found and Setting(found.value, found.source, project=project)


# Files


def _uv(account: Account, directory: Path) -> Iterator[tuple[Path, Any, bool]]:
    """uv's files, the strongest first, and whether each is of the project."""
    env = account.env
    if chosen := env.get("UV_CONFIG_FILE"):
        yield from ((Path(chosen), document, False) for document in _parsed(Path(chosen)))
        return
    if env.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        return
    for place in (directory, *directory.parents):
        own, shared = place / "uv.toml", place / "pyproject.toml"
        found = [(own, document, True) for document in _parsed(own)]
        if not found:
            found = [(shared, _table(document, "tool", "uv"), True) for document in _parsed(shared)]
            found = [one for one in found if one[1]]
        if found:
            yield from found
            break
    for path in (_config_home(account) / "uv" / "uv.toml", *(base / "uv" / "uv.toml" for base in _config_dirs(env))):
        yield from ((path, document, False) for document in _parsed(path))


def _pdm(account: Account, directory: Path) -> Iterator[tuple[Path, Any]]:
    env = account.env
    user = Path(env["PDM_CONFIG_FILE"]) if env.get("PDM_CONFIG_FILE") else _app_config(account, "pdm") / "config.toml"
    for path in (directory / "pdm.toml", user, *(base / "pdm" / "config.toml" for base in _config_dirs(env))):
        yield from ((path, document) for document in _parsed(path))


def _poetry(account: Account, directory: Path) -> Iterator[tuple[Path, Any]]:
    chosen = account.env.get("POETRY_CONFIG_DIR")
    user = Path(chosen) if chosen else _app_config(account, "pypoetry")
    for path in (directory / "poetry.toml", user / "config.toml"):
        yield from ((path, document) for document in _parsed(path))


def _parsed(path: Path) -> Iterator[Any]:
    try:
        yield tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return


def _config_home(account: Account) -> Path:
    base = account.env.get("XDG_CONFIG_HOME", "")
    return Path(base) if base.startswith("/") else account.home / ".config"


def _app_config(account: Account, name: str) -> Path:
    """As platformdirs has it."""
    if account.platform == "darwin":
        return account.home / "Library" / "Application Support" / name
    return _config_home(account) / name


def _config_dirs(env: Mapping[str, str]) -> tuple[Path, ...]:
    base = env.get("XDG_CONFIG_DIRS", "").strip() or "/etc/xdg"
    return (*(Path(one) for one in base.split(os.pathsep) if one.startswith("/")), Path("/etc"))
