"""Stop signals of a server, at the moments that no real server hits reliably."""

from __future__ import annotations

import signal

from deployer.server.boot.handover import SIGNALS
from deployer.server.boot.run import _Stop


def test_a_stop_while_the_program_is_replaced_waits_for_the_next_program() -> None:
    """Threads do not block it, so Python may run its handler after the main thread has blocked it."""
    stop = _Stop()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        stop.leaving = True
        stop(signal.SIGTERM, None)
        assert signal.SIGTERM in signal.sigpending()
        assert signal.sigwait({signal.SIGTERM}) == signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
