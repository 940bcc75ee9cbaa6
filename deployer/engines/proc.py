"""What the kernel says of a process of this host (proc(5)): whether it runs, and whether it is still the same one."""

from __future__ import annotations

from pathlib import Path

from deployer.host.runner import Runner


def runs(pid: object) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    return bool(_status(pid))


def mark(pid: int, runner: Runner) -> str:
    """What no other process can have, now or later: boot id and start time (field 22 of stat); elsewhere the start
    time that ps tells. Empty when there is no such process, or only its corpse.
    """
    if not Path("/proc/self/stat").exists():
        return runner.run(("ps", "-o", "lstart=", "-p", str(pid))).stdout.strip()
    status = _status(pid)
    return f"{_boot()}:{status[19]}" if status else ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # some sandboxes have none
        return ""


def _status(pid: object) -> list[str]:
    """The fields of stat from the state on; none of what does not run any more."""
    try:
        # The command in parentheses may hold anything, so what follows is counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if not fields or fields[0] in "ZX" else fields
