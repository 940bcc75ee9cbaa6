"""Load the server's modules before its options are known: the command line makes its plan meanwhile.

Nothing is opened, bound, locked or written before the word comes. Without it the process ends.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module

from deployer.protocol import told

_MODULES = (
    "deployer.server.boot.run",
    "devpi_server.main",
    "deployer.server.devpi.replacements",
    "deployer.server.plugin",
    "pyramid.config",
)
"""All that any server needs."""


def stand_by() -> list[str] | None:
    """Wait for the line on standard input, and take its variables; its words, None at the end of the input."""
    os.umask(0o077)
    gc.disable()  # as in a start
    for name in _MODULES:
        import_module(name)
    return wait_for_words()


def wait_for_words() -> list[str] | None:
    """The words of the line on standard input, whose variables this process takes; None at the end of the input."""
    line = sys.stdin.readline()
    if not line:
        return None
    word = told(line)
    os.environ.update(word["env"])
    return word["words"]
