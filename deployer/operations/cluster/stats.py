"""The counts of all members, each and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deployer.errors import ConflictError
from deployer.protocol import Counted, parsed
from deployer.typed import built

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster

SHOW = ("show", "statistics")
_NUMBERS = ("requests", "hits", "misses", "bytes_served", "bytes_saved")


def counts(cluster: Cluster) -> dict[int, Counted]:
    """What each member that runs has counted. Raises ConflictError when none tells."""
    found: dict[int, Counted] = {}
    for member in cluster.members():
        if member.state != "running":
            continue
        done = cluster.exec(member.number, SHOW)
        try:
            counted = built(Counted, parsed(done.stdout))
        except ValueError:
            continue
        counted.pop("read", None)
        found[member.number] = counted
    if not found:
        raise ConflictError("no member tells its statistics", hint="deployer doctor")
    return found


def summed(found: Sequence[Counted]) -> dict[str, dict[str, float]]:
    """The numbers of each index, of all members together. Pure."""
    total: dict[str, dict[str, float]] = {}
    for one in found:
        for name, of in one["indexes"].items():
            sums = total.setdefault(name, dict.fromkeys(_NUMBERS, 0))
            for key in _NUMBERS:
                sums[key] += of[key]  # type: ignore[literal-required]
    return total


def rows(found: Mapping[int, Counted]) -> list[tuple[str, ...]]:
    """A row for each index of all members, then one for each member. Pure."""
    from deployer.diagnosis import size

    def row(name: str, of: Mapping[str, float]) -> tuple[str, ...]:
        numbers = (f"{of[key]:.0f}" for key in _NUMBERS[:3])
        return (name, *numbers, size(int(of["bytes_served"])), size(int(of["bytes_saved"])))

    by_index = [row(name, of) for name, of in sorted(summed(list(found.values())).items())]
    by_member = []
    for number, counted in found.items():
        together: dict[str, float] = dict.fromkeys(_NUMBERS, 0)
        for of in summed([counted]).values():
            together = {key: together[key] + of[key] for key in _NUMBERS}
        by_member.append(row(f"member {number}", together))
    return [*by_index, *by_member]
