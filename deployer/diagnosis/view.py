"""All measurements of the network, and their wording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from deployer.plan.facts import Interface, Measured, Reach, Vantage
from deployer.plan.network import Network, missed
from deployer.spec import EngineName, NetworkMode


@dataclass(frozen=True, kw_only=True)
class View:
    """The network as seen from every place. ``None``: not measured.

    ``network`` is what ``up`` would choose; ``running`` what the running server has, and ``inside`` what it sees;
    ``proxied`` is this host's view through the proxy variables that the server is not given; ``egress`` the interface
    that leads to the upstream.
    """

    engine: EngineName
    network: Network
    host: Vantage
    bridge: Vantage | None = None
    inside: Vantage | None = None
    proxied: Vantage | None = None
    running: NetworkMode | None = None
    interfaces: tuple[Interface, ...] = ()
    default_route: str = ""
    egress: str = ""
    name_servers: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    pass_proxy: bool = False
    ca_file: Path | None = None
    offline: bool = False

    @property
    def server(self) -> Vantage:
        """The view of the server, current or planned."""
        if self.inside is not None:
            return self.inside
        if self.network.mode is NetworkMode.BRIDGE and self.bridge is not None:
            return self.bridge
        return self.host

    @property
    def fresh(self) -> Vantage:
        """The view of a server that is started now, in the network mode of the running one."""
        return self.bridge if self.running is NetworkMode.BRIDGE and self.bridge is not None else self.host

    @property
    def way_out(self) -> Interface | None:
        name = self.egress or self.default_route
        return next((interface for interface in self.interfaces if interface.name == name), None)

    @property
    def vpns(self) -> tuple[str, ...]:
        return tuple(interface.name for interface in self.interfaces if interface.vpn)

    @property
    def lost(self) -> tuple[tuple[str, str], ...]:
        """Addresses that this host reaches and a bridged container does not: (address, last stage)."""
        return missed(Measured(bridge=self.bridge, host=self.host)) if self.bridge is not None else ()

    @property
    def bridge_mtu(self) -> int:
        """The MTU of a bridged container's interface; 0 when unknown."""
        bridged = self.bridge or (self.inside if self.running is NetworkMode.BRIDGE else None)
        return max(bridged.mtu.values(), default=0) if bridged else 0

    @property
    def matters(self) -> bool:
        """Whether the server is or would be bridged, so that problems of a bridged container are its own."""
        return (self.running or self.network.mode) is NetworkMode.BRIDGE


def stuck(vantage: Vantage | None, *stages: str) -> Iterator[Reach]:
    """The requests that failed at one of ``stages``."""
    yield from (a for a in (vantage.answers if vantage else ()) if not a.ok and a.stage in stages and a.url)


def host_of(answer: Reach) -> str:
    """The name that was looked up, or connected to."""
    return answer.peer.rpartition(":")[0] or urlsplit(answer.url).hostname or answer.url
