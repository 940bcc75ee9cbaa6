"""How much the browser shows: ``server.web`` of the profile."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.protocol import WEB_LEVELS

NAME = "deployer-web"
OFF, READ, MANAGE, DEVPI_WEB = WEB_LEVELS


@dataclass(frozen=True)
class Level:
    """Registered as a devpi plugin, as :class:`deployer.server.hosts.KnownHosts` is."""

    value: str = MANAGE

    @property
    def shows(self) -> bool:
        """Whether deployer's own pages are shown."""
        return self.value in (READ, MANAGE)

    @property
    def manages(self) -> bool:
        """Whether users may log in there."""
        return self.value == MANAGE


def given(config: object) -> Level:
    """The level of this server. ``config``: devpi's."""
    found: Level | None = config.pluginmanager.get_plugin(NAME)  # type: ignore[attr-defined]
    return found or Level()
