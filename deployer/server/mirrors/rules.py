"""What the operator decided about pages of upstreams."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "deployer-mirrors"


@dataclass(frozen=True)
class MirrorRules:
    """``not_found_expiry``: seconds for which an upstream is not asked again for a project that it did not have.
    ``keep_deleted``: whether a project that its upstream has deleted is served from its last page.

    Registered as a devpi plugin, like push targets.
    """

    not_found_expiry: float = 60.0
    keep_deleted: bool = False

    def missing(self, expiry: float) -> float:
        """For how many seconds an upstream counts as not having a project. ``expiry``: that of the mirror's pages."""
        return min(self.not_found_expiry, expiry)


def given(config: object) -> MirrorRules:
    """The rules of this server. ``config``: devpi's."""
    found: MirrorRules | None = config.pluginmanager.get_plugin(NAME)  # type: ignore[attr-defined]
    return found or MirrorRules()
