"""How ``pytest -n 2`` deals the tests out: a file at a time, since what its tests share is made once a file."""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_ENGINE = re.compile(r"\[(docker|podman|nerdctl)\b")


class ByFile(LoadScopeScheduling):
    """The engines' contract is the longest file and shares nothing: an engine at a time.

    Files go in the order that they were collected in, and the quick ones of ``tests/unit`` come last.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        engine = _ENGINE.search(nodeid) if file.startswith("tests/contract/") else None
        return f"{file}[{engine[1]}]" if engine else file
