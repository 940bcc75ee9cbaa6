"""``python -m tests.crash SIGNAL COUNT EFFECT WORD…``: the command line, with ``SIGNAL`` just before its ``COUNT``-th
``EFFECT``.

An effect is what Python's own audit events tell of: a process, a connection, a file that is written, renamed, removed.
Nothing in deployer knows of this. With a file descriptor in ``CRASH_TOLD``, each effect is written to it, one a line.
"""

from __future__ import annotations

import os
import re
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ALWAYS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown"}


def effect(event: str, args: tuple[object, ...]) -> str:
    """What would be done, in a line that is the same each time; empty for what changes nothing."""
    match event, args:
        case "open", (str() | os.PathLike() as path, _, int() as flags) if flags & WRITING and "/dev/" not in str(path):
            return f"open {path}"
        case "subprocess.Popen", (_, words, *_):
            line = " ".join(["start", *map(str, words)])  # type: ignore[call-overload]
            return re.sub(r"(\.made|DEPLOYER_MADE)=\S+", r"\1=…", line)  # made anew for each container
        case "socket.connect", _:
            return "connect"
        case _, (str() | os.PathLike() as path, *_) if event in ALWAYS:
            return f"{event} {path}"
    return ""


def main() -> None:
    name, count, awaited, words = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    told = int(os.environ.pop("CRASH_TOLD", "-1"))
    seen = 0

    def hear(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        what = effect(event, args).replace("\n", " ")
        if not what:
            return
        if told >= 0:
            os.write(told, what.encode() + b"\n")
        if what == awaited:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), getattr(signal, name))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # as in a terminal, also where the tests run under nohup
    from deployer.cli import main as deployer

    sys.argv = ["deployer", *words]
    sys.addaudithook(hear)
    deployer()


if __name__ == "__main__":
    main()
