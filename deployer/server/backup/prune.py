"""Which backups are kept, and the removal of all others with the blobs that only they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from deployer.protocol import Backup, ExitCode, Refusal
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.secret_files import sync


@dataclass(frozen=True, kw_only=True)
class Keep:
    """So many of the newest backups, and of the newest in each of the last so many days, weeks, months and years that
    have one."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


_PERIODS: dict[str, Callable[[datetime], object]] = {
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}


def kept(backups: Sequence[Backup], keep: Keep) -> set[str]:
    """The names of the backups that ``keep`` keeps; the newest is always one of them. Pure.

    ``backups``: oldest first.
    """
    newest = list(reversed(backups))
    found = {backup.name for backup in newest[: max(1, keep.last)]}
    for rule, period in _PERIODS.items():
        seen: set[object] = set()
        for backup in newest:
            at = period(datetime.fromisoformat(backup.created))
            if at not in seen and len(seen) < getattr(keep, rule):
                seen.add(at)
                found.add(backup.name)
    return found


def prune(repository: Repository, keep: Keep) -> dict[str, object]:
    """Remove the backups that ``keep`` does not keep, then every blob that no backup needs. Raises Refusal."""
    with repository.locked():
        backups = repository.all()
        names = kept(backups, keep)
        needed = _needed(repository, [backup for backup in backups if backup.name in names])
        removed = [backup.name for backup in backups if backup.name not in names]
        for name in removed:
            (repository.backups / f"{name}.json").unlink()
        sync(repository.backups)  # a manifest must not return without its blobs
        repository.clear()
        freed = 0
        for digest in repository.known() - needed:
            blob = repository.blob(digest)
            freed += blob.stat().st_size
            blob.unlink()
    return {"removed": removed, "kept": sorted(names), "freed_bytes": freed}


def _needed(repository: Repository, backups: Iterable[Backup]) -> set[str]:
    needed: set[str] = set()
    for backup in backups:
        try:
            needed |= {*backup.blobs, *(digest for digest, _ in repository.files(backup))}
        except Damaged as error:
            raise Refusal(
                f"{backup.name}: {error}; nothing was removed",
                hint=f"remove {repository.backups / backup.name}.json, and prune again",
                code=ExitCode.VERIFICATION,
            ) from None
    return needed
