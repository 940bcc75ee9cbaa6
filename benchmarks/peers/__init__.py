"""The servers that are compared, by name."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import DevpiBehindNginx, PlainDevpi
from benchmarks.peers.other_indexes import Proxpi, Pypiserver
from benchmarks.peers.ours import DockerRun, Ours, OursOnDocker
from benchmarks.peers.plain_nginx import NginxCache, NginxStatic
from benchmarks.peers.rust import Nora, Pypiron

ALL: tuple[type[Peer], ...] = (
    NginxStatic,
    NginxCache,
    Proxpi,
    Pypiserver,
    Pypiron,
    Nora,
    PlainDevpi,
    DevpiBehindNginx,
    Ours,
)


def named(names: Sequence[str]) -> tuple[type[Peer], ...]:
    """The peers of these names, in the usual order. Raises KeyError."""
    every: tuple[type[Peer], ...] = (*ALL, OursOnDocker, DockerRun)
    known = {peer.name: peer for peer in every}
    return tuple(known[name] for name in names)
