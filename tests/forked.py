"""A program in a child that is forked: as separate as a process of its own, without importing everything once more."""

from __future__ import annotations

import gc
import importlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NoReturn

Done = subprocess.CompletedProcess[str]


def forked(
    main: Callable[[], object], *, words: Sequence[str] = ("forked",), env: Mapping[str, str] | None = None
) -> Done:
    """Call ``main`` in a child of this very process; ``words`` are its ``sys.argv``, and ``env`` is its environment.

    The exit code is that of ``SystemExit``, 1 for any other exception, else 0; negative for a signal.
    """
    with tempfile.TemporaryDirectory() as name:
        box = _Box(Path(name), "")
        child = os.fork()
        if child == 0:
            box.run(main, words, os.environ.copy() if env is None else env)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return box.done(words, code)


def run_module(
    module: str, words: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: str = "", timeout: float = 600
) -> Done:
    """What ``python -m MODULE WORD…`` does, in a fork of a server without threads, which has imported all of deployer.

    Raises subprocess.TimeoutExpired after ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as name:
        box = _Box(Path(name), stdin)
        child = _server().Process(target=_main, args=(module, [module, *words], dict(env), str(cwd), box))
        child.start()
        try:
            child.join(timeout)
            if child.exitcode is None:
                raise subprocess.TimeoutExpired([module, *words], timeout)
            return box.done(words, child.exitcode)
        finally:
            child.kill()
            child.join()
            child.close()


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


def _main(module: str, words: Sequence[str], env: Mapping[str, str], cwd: str, box: _Box) -> NoReturn:
    os.chdir(cwd)
    box.run(lambda: importlib.import_module(module).main(), words, env)


class _Box:
    """Where the standard streams of a child are files."""

    def __init__(self, where: Path, stdin: str) -> None:
        self._paths = [where / name for name in ("stdin", "stdout", "stderr")]
        for path, text in zip(self._paths, (stdin, "", ""), strict=True):
            path.write_text(text)

    def done(self, words: Sequence[str], code: int) -> Done:
        _, out, err = (path.read_text(errors="replace") for path in self._paths)
        return subprocess.CompletedProcess(list(words), code, out, err)

    def run(self, main: Callable[[], object], words: Sequence[str], env: Mapping[str, str]) -> NoReturn:
        """Be that program until it ends, and end with it."""
        code = 1
        try:
            self._become(words, env)
            code = _exit_code(main)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _become(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        gc.freeze()  # to look at all that was imported would copy its memory
        for number, (path, mode) in enumerate(zip(self._paths, ("rb", "ab", "ab"), strict=True)):
            with path.open(mode) as stream:
                os.dup2(stream.fileno(), number)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        sys.argv = list(words)
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
