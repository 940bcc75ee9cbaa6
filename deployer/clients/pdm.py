"""pdm as a client: ``pypi.url`` of its configuration files, or the source ``pypi`` of a project.

The order is that of ``Project.get_sources`` and ``Config`` in pdm's ``project/core.py`` and ``project/config.py``: a
source of pyproject.toml has precedence over a variable, and that over all files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from deployer.addresses import is_loopback
from deployer.clients.client import Account, ClientSettings, Values
from deployer.clients.toml import keys
from deployer.clients.toml.client import (
    PROJECT,
    TomlClient,
    no_project,
    project_directory,
    site_directories,
    user_directory,
)
from deployer.clients.toml.config import Place


class Pdm(TomlClient):
    """Sources with other names are asked, too, and the newest version of all wins."""

    name = "pdm"
    scopes = ("user", "project", "machine")
    index_keys: ClassVar = {
        "config.toml": "pypi.url",
        "pdm.toml": "pypi.url",
        PROJECT: "tool.pdm.source[name=pypi].url",
    }
    variable = "PDM_PYPI_URL"

    def variables(self, settings: ClientSettings) -> Values:
        trust = {"PDM_PYPI_CA_CERTS": settings.ca} if settings.ca else {}
        return {**super().variables(settings), "PDM_REQUEST_TIMEOUT": str(settings.timeout), **trust}

    def values(self, settings: ClientSettings, path: Path) -> Values:
        """The sources of pyproject.toml have no CA: that is for pdm's configuration."""
        trust = {"pypi.ca_certs": settings.ca} if settings.ca and path.name != PROJECT else {}
        return {**super().values(settings, path), **trust}

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        if settings.index_url.startswith("https:") or is_loopback(settings.index_url):
            return ()
        return ("pdm ignores an index of plain http on another host: use https",)

    def detect(self, scope: str, account: Account) -> Path:
        match scope:
            case "user":
                return _chosen(account) or user_directory(account, "pdm") / "config.toml"
            case "machine":
                return site_directories(account, "pdm")[0] / "config.toml"
        found = project_directory(account, PROJECT)
        if found is None:
            raise no_project()
        # pdm.toml does not count for the lock file's hash; a source of pyproject.toml would override it.
        project = self.file(found / PROJECT)
        return found / (PROJECT if project.index[0] else "pdm.toml")

    def places(self, account: Account) -> tuple[Place, ...]:
        found = [self.file(self.detect("machine", account))]
        found.append(self.file(self.detect("user", account)))
        project = project_directory(account, PROJECT)
        if project is not None:
            found.append(self.file(project / "pdm.toml"))
        found += self.variables_of(account, self.variable)
        if project is not None:
            found.append(self.file(project / PROJECT))
        return tuple(found)

    def hazards(self, places: tuple[Place, ...]) -> tuple[str, ...]:
        return tuple(line for place in places for line in _of(place))


def _chosen(account: Account) -> Path | None:
    chosen = account.env.get("PDM_CONFIG_FILE", "")
    return Path(chosen) if chosen else None


def _of(place: Place) -> Iterator[str]:
    if place.path is None:
        return
    if place.path.name == PROJECT:
        rows = keys.get(place.document, "tool.pdm.source")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, Mapping) and row.get("name") != "pypi":
                yield f"{place.source} [[tool.pdm.source]] {row.get('name')}: pdm asks that index, too"
        return
    table = place.document.get("pypi")
    for name, value in table.items() if isinstance(table, Mapping) else ():
        if isinstance(value, Mapping) and value.get("url"):
            yield f"{place.source} [pypi.{name}]: pdm asks that index, too"
