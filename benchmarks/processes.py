"""What the kernel says of processes: who is below whom, and how much memory each had at its worst moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path


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
    """MiB: the sum of ``VmHWM`` (proc(5)), so what processes share is counted for each."""
    return sum(int(found[1]) for pid in pids if (found := re.search(rb"VmHWM:\s+(\d+)", read(pid, "status")))) / 1024


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
