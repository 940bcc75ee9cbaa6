"""A program run in a forked child: as separate as a process of its own, without importing everything once more."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence


def forked(
    main: Callable[[], object], *, words: Sequence[str] = ("forked",), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call ``main`` in a child with ``words`` as its ``sys.argv`` and ``env`` as its environment; what it printed.

    The exit code is that of ``SystemExit``, 1 for any other exception, else 0. Signals end the child as they would
    end a process: with a negative code.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _become(out.fileno(), err.fileno(), words, env)
                code = _exit_code(main)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(list(words), code, *texts)


def _become(out: int, err: int, words: Sequence[str], env: Mapping[str, str] | None) -> None:
    gc.freeze()  # to look at all that was imported would copy its memory
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), encoding="utf-8", errors="backslashreplace"
    )
    sys.argv = list(words)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
