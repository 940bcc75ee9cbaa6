"""The console script, and ``python -m deployer``: what takes long begins before the command line is imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

_COLLECTED = 100_000
"""New objects after which Python looks for garbage. By default it does so hundreds of times while a command is
imported, which takes a fifth of its time."""


def main() -> None:
    """Run the command line of this process."""
    gc.set_threshold(_COLLECTED)
    _begin(sys.argv[1:])
    from deployer import cli

    try:
        cli.main()
    finally:
        gc.freeze()  # the interpreter would collect all modules at its exit


def _begin(words: Sequence[str]) -> None:
    """Let the server that ``up`` may start load: importing the command line takes as long."""
    if words[:1] == ["up"] and not {"-h", "--help"}.intersection(words):
        from deployer.operations.ahead import load_server
        from deployer.ui import streams

        streams.open_closed()
        load_server(words)


if __name__ == "__main__":
    main()
