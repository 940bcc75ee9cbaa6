"""New indexes that take uploads let nobody add test results, unless whoever creates them says who may.

devpi's own default, for every type but mirrors, lets anonymous clients write them into the data directory.
"""

from __future__ import annotations

from typing import Any

from deployer.server.devpi.installed import inside, installed

_CREATE = "create_stage"
RIGHT = "acl_toxresult_upload"


def install() -> None:
    """Replace devpi's method that creates an index of a user."""
    user = inside().USER
    create = getattr(user, _CREATE)

    def create_stage(self: Any, index: str, type: str = installed().stage, **fields: Any) -> Any:  # noqa: A002 - devpi's
        if type != installed().mirror:
            fields.setdefault(RIGHT, [])
        return create(self, index, type=type, **fields)

    setattr(user, _CREATE, create_stage)
