"""The server's threads where the system gives no more of them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from deployer.server.middleware.threads import growing


def test_there_are_as_many_as_the_system_gives_and_more_when_it_gives_more(monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, Any] = {}
    grow, _ = growing(2, words)
    dispatcher = words["_dispatcher"]
    start = threading.Thread.start
    left = 3

    def limited(thread: threading.Thread) -> None:
        nonlocal left
        if not left:
            raise RuntimeError("can't start new thread")
        left -= 1
        start(thread)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", limited)
            grow(8)
        assert len(dispatcher.threads) == 5
        grow(8)
        assert len(dispatcher.threads) == 8
    finally:
        dispatcher.shutdown()
