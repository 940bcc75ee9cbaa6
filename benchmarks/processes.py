"""What the kernel says of processes: who is below whom, how much memory each has, and its CPU time (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

IDLE = 0.015
"""Seconds of CPU time in half a second that a server may use and is idle all the same."""


def tree(*roots: int) -> set[int]:
    """``roots`` and all that they have started, at any depth."""
    parents = {pid: int(found[1]) for pid in _all() if (found := re.search(rb"PPid:\s+(\d+)", read(pid, "status")))}
    found_now = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found_now} - found_now:
        found_now |= more
    return found_now


def mentioning(words: str) -> set[int]:
    """Processes with ``words`` in their command line."""
    return {pid for pid in _all() if words.encode() in read(pid, "cmdline")}


def peak(pids: Iterable[int]) -> float:
    """MiB: the sum of ``VmHWM``, so what processes share is counted for each."""
    return _mebibytes(pids, "VmHWM")


def extra_memory_from_now_on(pids: Iterable[int]) -> Callable[[], float]:
    """MiB by which the processes together have grown at the worst moment of each, when the result is called."""
    mine = set(pids)
    for pid in mine:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew
    before = _mebibytes(mine, "VmRSS")
    return lambda: peak(mine) - before


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU time, in steps of 10 ms; children that have ended and were waited for are counted."""
    ticks = 0
    for pid in pids:
        fields = read(pid, "stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def run_time(pids: Iterable[int]) -> float:
    """Seconds on a processor of the first thread of each, to the nanosecond (the kernel's sched-stats.rst)."""
    return sum(int(read(pid, "schedstat").split()[0]) for pid in pids) / 1e9


def run_time_of_threads(pids: Iterable[int]) -> float:
    """The same of all threads that live."""
    texts = (read(pid, f"task/{task.name}/schedstat") for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(text.split()[0]) for text in texts if text) / 1e9


def named(pids: Iterable[int], title: str) -> set[int]:
    """Those of ``pids`` whose command line begins with ``title``."""
    return {pid for pid in pids if read(pid, "cmdline").startswith(title.encode())}


def settled_cpu(pids: Iterable[int]) -> float:
    """:func:`cpu`, once the processes have done nothing for half a second, or after half a minute."""
    mine = set(pids)
    deadline = time.monotonic() + 30
    before, now = -1.0, cpu(mine)
    while now - before > IDLE and time.monotonic() < deadline:
        time.sleep(0.5)
        before, now = now, cpu(mine)
    return now


def _mebibytes(pids: Iterable[int], what: str) -> float:
    pattern = re.compile(rf"{what}:\s+(\d+)".encode())
    return sum(int(found[1]) for pid in pids if (found := pattern.search(read(pid, "status")))) / 1024


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
