"""Stands in for ``python -m deployer.server``, so that the real supervisor runs a program of the tests.

supervised_program.py PROGRAM supervise OPTIONS -- WORDS     supervises PROGRAM WORDS
supervised_program.py PROGRAM WORDS                          runs PROGRAM WORDS
"""

from __future__ import annotations

import os
import runpy
import sys
from unittest.mock import patch

from deployer.protocol import told
from deployer.server.__main__ import main
from deployer.server.boot import supervisor

if __name__ == "__main__":
    program, *words = sys.argv[1:]
    if words[:1] == ["supervise"]:
        with patch.object(supervisor, "SERVER", (sys.executable, __file__, program)):
            sys.exit(main(words))
    if words[-1:] == ["--when-told"]:
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        words[-1:] = told(line)["words"]
        os.environ.update(told(line)["env"])
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")
