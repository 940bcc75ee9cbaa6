"""``python -m deployer.operations.keeper NAME``: take the deployment down once the job that made it is killed.

Its standard input ends with the job. It imports next to nothing before that: it stays as long as the server does.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


class _Over(Exception):
    """SIGTERM: this machine or the session of this process ends."""


def main(name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _over)
    try:
        while os.read(sys.stdin.fileno(), 1):
            pass
    except _Over:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from deployer.operations.lifetime import end

    end(name)


def _over(_number: int, _frame: FrameType | None) -> None:
    raise _Over


if __name__ == "__main__":
    main(sys.argv[1])
