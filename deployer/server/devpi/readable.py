"""The readers of an index as an attribute of it, on indexes of every type."""

from __future__ import annotations

from typing import Any

from deployer.server.devpi.installed import inside
from deployer.server.guard.readers import FIELD, InvalidReaders, checked


def install() -> None:
    """Add the attribute to devpi's indexes."""
    inside().add_field(FIELD, _normalized)


def _normalized(value: object) -> Any:
    try:
        return checked(value)
    except InvalidReaders as error:
        raise inside().InvalidIndexconfig([str(error)]) from None
