"""uv as a client: uv.toml, or ``[tool.uv]`` of a project.

The order is that of uv's documentation ("Configuration files"): the machine, the user, the project, variables. Of a
project, uv.toml replaces the table in pyproject.toml.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from deployer.clients.client import Account, ClientSettings, Values
from deployer.clients.toml import keys
from deployer.clients.toml.client import (
    PROJECT,
    TomlClient,
    no_project,
    project_directory,
    site_directories,
)
from deployer.clients.toml.config import Place
from deployer.errors import ClientFileError

UV_TOML = "uv.toml"
_OTHER_INDEXES = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")
_OTHER_KEYS = ("extra-index-url", "find-links", "no-index")


class Uv(TomlClient):
    """The index is the row of ``[[index]]`` that is the default; uv asks every other row before it."""

    name = "uv"
    scopes = ("user", "project", "machine")
    index_keys: ClassVar = {UV_TOML: "index[default=true].url", PROJECT: "tool.uv.index[default=true].url"}
    variable = "UV_DEFAULT_INDEX"

    def variables(self, settings: ClientSettings) -> Values:
        """The index address needs ``/+simple/`` for uv as well."""
        trust = {"SSL_CERT_FILE": settings.ca} if settings.ca else {}
        return {**super().variables(settings), "UV_HTTP_TIMEOUT": str(settings.timeout), **trust}

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        """uv.toml has no key for a CA."""
        return (f"uv reads the CA from a variable only: export SSL_CERT_FILE={settings.ca}",) if settings.ca else ()

    def detect(self, scope: str, account: Account) -> Path:
        match scope:
            case "user":
                # uv follows XDG on macOS, too.
                base = account.env.get("XDG_CONFIG_HOME", "").strip()
                return (Path(base) if base else account.home / ".config") / "uv" / UV_TOML
            case "machine":
                there = [folder / UV_TOML for folder in _machine(account)]
                return next((path for path in there if path.is_file()), there[-1])
        found = project_directory(account, UV_TOML, PROJECT)
        if found is None:
            raise no_project()
        return found / UV_TOML if (found / UV_TOML).is_file() else found / PROJECT

    def places(self, account: Account) -> tuple[Place, ...]:
        chosen, off = account.env.get("UV_CONFIG_FILE", ""), account.env.get("UV_NO_CONFIG", "")
        ignored = "UV_NO_CONFIG is set" if off else f"UV_CONFIG_FILE is {chosen}" if chosen else ""
        found = [self._file(self.detect(scope, account), ignored) for scope in ("machine", "user")]
        with contextlib.suppress(ClientFileError):
            found.append(self._file(self.detect("project", account), ignored))
        if chosen and not off:
            found.append(self._file(Path(chosen), ""))
        return (*found, *self.variables_of(account, *_OTHER_INDEXES, "UV_INDEX_URL", self.variable))

    def _file(self, path: Path, ignored: str) -> Place:
        prefix = "tool.uv." if path.name == PROJECT else ""
        return self.file(path, f"{prefix}index-url", ignored=ignored)

    def hazards(self, places: tuple[Place, ...]) -> tuple[str, ...]:
        return tuple(line for place in places for line in _of(place))


def _machine(account: Account) -> tuple[Path, ...]:
    return (*site_directories(account, "uv"), Path("/etc/uv"))


def _of(place: Place) -> Iterator[str]:
    if place.variable in _OTHER_INDEXES and place.value:
        yield f"{place.variable} is set: uv does not install from the index alone"
    if place.path is None:
        return
    table = keys.get(place.document, "tool.uv") if place.path.name == PROJECT else place.document
    yield from _of_table(table if isinstance(table, Mapping) else {}, place.source)


def _of_table(table: Mapping[str, Any], source: str) -> Iterator[str]:
    rows = table.get("index")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping) and not row.get("default") and not row.get("explicit"):
            yield f"{source} [[index]] {row.get('name', 'without a name')}: uv asks that index first, for every name"
    pip = table.get("pip")
    for section, items in (("", table), ("[pip] ", pip if isinstance(pip, Mapping) else {})):
        for key in (*_OTHER_KEYS, *(("index-url",) if section else ())):
            if items.get(key):
                yield f"{source} {section}{key}: uv does not install from the index alone"
