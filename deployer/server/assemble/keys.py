"""Keys of Pyramid's registry, for what other modules and plugins ask of the assembled server."""

from __future__ import annotations

SWITCH, CHANGELOG, CHALLENGE = "deployer.offline", "deployer.changelog", "deployer.challenge"
DELETED = "deployer.deleted"
"""The function that returns which projects an upstream has deleted, but those of some hidden mirrors."""
MALICIOUS = "deployer.malicious"
"""The list of malicious releases, which is read again when its file has changed."""
STORE = "deployer.pages"
"""The page store."""
INVENTORY = "deployer.inventory"
"""The inventory (:mod:`deployer.server.inventory.reading` has what it answers)."""
CACHE = "deployer.cache"
"""The function that returns the bytes of the cache, and its budget."""
ACTIVITY = "deployer.activity"
"""The view of what happens now (:class:`deployer.server.nginx.activity.ActivityView`)."""
HISTORY = "deployer.history"
"""The history (:class:`deployer.server.nginx.history.History`)."""
