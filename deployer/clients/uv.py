"""uv as a client: through its variables."""

from __future__ import annotations

from deployer.clients.client import Account, ClientSettings, Values

_OTHER_INDEXES = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")


class Uv:
    name = "uv"

    def variables(self, settings: ClientSettings) -> Values:
        """The index address needs ``/+simple/`` for uv as well."""
        return {"UV_DEFAULT_INDEX": settings.index_url, "UV_HTTP_TIMEOUT": str(settings.timeout)}

    def risks(self, account: Account) -> tuple[str, ...]:
        return tuple(
            f"{name} is set: uv does not install from the index alone"
            for name in _OTHER_INDEXES
            if account.env.get(name)
        )
