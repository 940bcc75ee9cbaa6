"""Poetry as a client: a source of the project, or the address of the plugin poetry-plugin-pypi-mirror.

Poetry has no index in its own configuration. The plugin reads one there, for what comes from the default index.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from deployer.clients.client import Account, ClientSettings, Values
from deployer.clients.toml import keys
from deployer.clients.toml.client import PROJECT, TomlClient, no_project, project_directory, user_directory
from deployer.clients.toml.config import Place
from deployer.errors import ClientFileError

SOURCE = "deployer"
PLUGIN = "poetry-plugin-pypi-mirror"
_OURS = f"tool.poetry.source[name={SOURCE}]"


class Poetry(TomlClient):
    """Where there is a primary source, poetry does not ask its default index."""

    name = "poetry"
    scopes = ("user", "project")
    index_keys: ClassVar = {
        "config.toml": "plugins.pypi_mirror.url",
        "poetry.toml": "plugins.pypi_mirror.url",
        PROJECT: f"{_OURS}.url",
    }
    more: ClassVar = {PROJECT: {f"{_OURS}.priority": "primary"}}
    variable = "POETRY_PYPI_MIRROR_URL"

    def variables(self, settings: ClientSettings) -> Values:
        trust = {f"POETRY_CERTIFICATES_{SOURCE.upper()}_CERT": settings.ca} if settings.ca else {}
        return {**super().variables(settings), **trust}

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        """Poetry has certificates in a file of their own, by the name of a source."""
        wanted = f"poetry config certificates.{SOURCE}.cert {settings.ca}"
        return (f"poetry needs the CA: {wanted}",) if settings.ca else ()

    def detect(self, scope: str, account: Account) -> Path:
        if scope == "user":
            chosen = account.env.get("POETRY_CONFIG_DIR", "")
            return (Path(chosen) if chosen else user_directory(account, "pypoetry")) / "config.toml"
        found = project_directory(account, PROJECT)
        if found is None:
            raise no_project()
        if not isinstance(keys.get(self.file(found / PROJECT).document, "tool.poetry"), Mapping | None):
            raise ClientFileError(f"[tool.poetry] of {found / PROJECT} is not a table", hint="correct it by hand")
        return found / PROJECT

    def places(self, account: Account) -> tuple[Place, ...]:
        ignored = "" if has_plugin(account) else f"{PLUGIN} is not installed, and poetry itself has no such setting"
        found = [self.file(self.detect("user", account), ignored=ignored)]
        project = project_directory(account, PROJECT)
        if project is not None:
            found.append(self.file(project / "poetry.toml", ignored=ignored))
        if not ignored:
            found += self.variables_of(account, self.variable)
        if project is not None:
            place = self.file(project / PROJECT)
            others = [name for name, _ in _primary(place.document) if name != SOURCE]
            found.append(self.file(project / PROJECT, *(f"tool.poetry.source[name={name}].url" for name in others)))
        return tuple(found)

    def hazards(self, places: tuple[Place, ...]) -> tuple[str, ...]:
        return tuple(line for place in places for line in _of(place))


def has_plugin(account: Account) -> bool:
    """Whether the poetry on PATH has the plugin for mirrors of the default index."""
    found = shutil.which("poetry", path=account.env.get("PATH", ""))
    if found is None:
        return False
    prefix = Path(found).resolve().parent.parent
    return any(prefix.glob(f"lib/python3.*/site-packages/{PLUGIN.replace('-', '_')}-*.dist-info"))


def _sources(document: Any) -> Iterator[Mapping[str, Any]]:
    rows = keys.get(document, "tool.poetry.source")
    return (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, Mapping))


def _primary(document: Any) -> Iterator[tuple[str, str]]:
    for row in _sources(document):
        name = str(row.get("name", ""))
        if (
            row.get("priority", "primary") in ("primary", "default")
            and name.replace("-", "").replace("_", "").isalnum()
        ):
            yield name, str(row.get("url", ""))


def _of(place: Place) -> Iterator[str]:
    if place.path is None or place.path.name != PROJECT:
        return
    for row in _sources(place.document):
        if row.get("name") != SOURCE and row.get("priority", "primary") != "explicit":
            yield f"{place.source} [[tool.poetry.source]] {row.get('name')}: poetry asks that index, too"
