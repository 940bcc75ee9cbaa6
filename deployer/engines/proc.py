"""Processes of this host (proc(5)): whether one runs, and whether it is still the same one."""

from __future__ import annotations

from pathlib import Path

from deployer.host.runner import Runner


def runs(pid: object) -> bool:
    """Whether a process runs. A zombie does not."""
    return bool(_status(pid))


def mark(pid: int, runner: Runner) -> str:
    """A mark that no other process ever has: boot id and start time (field 22 of stat).

    Without /proc, the start time that ps prints. Empty when no such process runs.
    """
    if not Path("/proc/self/stat").exists():
        return runner.run(("ps", "-o", "lstart=", "-p", str(pid))).stdout.strip()
    status = _status(pid)
    return f"{_boot()}:{status[19]}" if status else ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # missing in some sandboxes
        return ""


def _status(pid: object) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when the process does not run."""
    try:
        # The command name in parentheses may hold any character, so split after the last parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if not fields or fields[0] in "ZX" else fields
