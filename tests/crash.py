"""``python -m tests.crash NUMBER SIGNAL WORD…``: the command line, with ``SIGNAL`` just before its effect ``NUMBER``.

An effect is what Python's own audit events tell of: a process, a connection, a file that is written, renamed, removed.
Nothing in deployer knows of this. With a file descriptor in ``CRASH_TOLD``, each effect is written to it, one a line.
"""

from __future__ import annotations

import os
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ALWAYS = {
    "subprocess.Popen",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "socket.connect",
}


def effect(event: str, args: tuple[object, ...]) -> str:
    """What would be done, in a line; empty for what changes nothing."""
    if event == "open":
        path, _, flags = args
        writes = isinstance(flags, int) and flags & WRITING
        return f"open {path}" if writes and "/dev/" not in str(path) else ""
    return f"{event} {args[0]}" if event in ALWAYS else ""


def main() -> None:
    number, name, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    told = int(os.environ.pop("CRASH_TOLD", "-1"))
    seen = 0

    def hear(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        what = effect(event, args)
        if not what:
            return
        if told >= 0:
            os.write(told, what.replace("\n", " ").encode() + b"\n")
        if seen == number:
            os.kill(os.getpid(), getattr(signal, name))
        seen += 1

    from deployer.cli import main as deployer

    sys.argv = ["deployer", *words]
    sys.addaudithook(hear)
    deployer()


if __name__ == "__main__":
    main()
