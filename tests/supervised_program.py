"""Stands in for ``python -m deployer.server``, so that the real supervisor runs a program of the tests.

supervised_program.py PROGRAM supervise OPTIONS -- WORDS     supervises PROGRAM WORDS
supervised_program.py PROGRAM WORDS                          runs PROGRAM WORDS
"""

from __future__ import annotations

import runpy
import sys
from functools import partial
from unittest.mock import patch

from deployer.protocol import OWN_PYTHON
from deployer.server.__main__ import main
from deployer.server.boot import supervisor

OURS = len((*OWN_PYTHON, "-m", "deployer.server"))


def supervised(real: type[supervisor.Supervisor], program: str, command, *more):  # type: ignore[no-untyped-def]
    return real((sys.executable, program, *command[OURS:]), *more)


if __name__ == "__main__":
    program, *words = sys.argv[1:]
    if words[:1] == ["supervise"]:
        with patch.object(supervisor, "Supervisor", partial(supervised, supervisor.Supervisor, program)):
            sys.exit(main(words))
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")
