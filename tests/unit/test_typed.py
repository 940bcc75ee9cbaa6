"""Types with keys that need not be there."""

from __future__ import annotations

import pytest

from deployer.protocol import Counted, IndexCounts
from deployer.typed import built

COUNTS = {"requests": 1, "hits": 0, "misses": 0, "bytes_served": 0, "bytes_saved": 0}


def test_a_key_that_is_not_required_may_be_missing() -> None:
    assert built(IndexCounts, COUNTS) == COUNTS
    found = built(Counted, {"since": "2026-01-01", "indexes": {"root/dev": COUNTS}, "upstreams": {}})
    assert "read" not in found


def test_a_key_that_is_required_may_not() -> None:
    with pytest.raises(ValueError, match="no upstreams"):
        built(Counted, {"since": "2026-01-01", "indexes": {}})
