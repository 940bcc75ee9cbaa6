"""What the profile of a cluster means for one of its members on this host. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import Refused
from deployer.plan.data import data_path
from deployer.profile.models import Tls
from deployer.spec import ContainerSpec, Mount

if TYPE_CHECKING:
    from deployer.profile.load import Loaded
    from deployer.profile.models import Profile

LOOPBACK = "127.0.0.1"
GIVEN_TARGET = "/etc/deployer/cluster"
"""Where a container reads what all members share."""
SECRET, PASSWORD = "members-secret", "root-password"


def check(profile: Profile) -> None:
    """Raise Refused for what a cluster on one host can't do."""
    network = profile.network
    if network.mode == "bridge":
        raise Refused(
            "members on one host reach each other on its own network, and the profile says network.mode: bridge",
            hint="set network.mode to host or auto",
        )


def whole(profile: Profile) -> Profile:
    """The profile of what clients see: all on the network of this host."""
    return profile.model_copy(update={"network": profile.network.model_copy(update={"mode": "host"})})


def answering_to(loaded: Loaded, whole: ContainerSpec) -> Loaded:
    """The same with the host names that the whole deployment would answer: those of its certificate are among them."""
    hosts = tuple(name for option, name in pairwise(whole.command) if option == "--allow-host")
    network = loaded.profile.network.model_copy(update={"hosts": hosts})
    return replace(loaded, profile=loaded.profile.model_copy(update={"network": network}))


def of_member(profile: Profile, name: str, number: int, *, home: Path, uid: int) -> Profile:
    """The profile of a member of the cluster ``name``."""
    network = profile.network.model_copy(
        update={
            "mode": "host",
            "bind": IPv4Address(LOOPBACK),
            "port": 0,
            "expose": False,
            "tls": Tls(),
            "trusted_proxies": (*profile.network.trusted_proxies, LOOPBACK),
            "hosts": _hosts(profile),
        }
    )
    server = profile.server.model_copy(update={"metrics": _metrics(profile.server.metrics, number)})
    return profile.model_copy(
        update={
            "network": network,
            "server": server,
            "data": data_of(profile.data, name, number, home=home, uid=uid),
            "clients": profile.clients.model_copy(update={"configure": ()}),
            "warm": (),
        }
    )


def data_of(choice: str, name: str, number: int, *, home: Path, uid: int) -> str:
    """Where a member keeps its data: the first one where a single server would, the others beside it."""
    beside = f"-{number}" if number else ""
    path = data_path(choice, name=name, home=home, uid=uid)
    return f"{choice}{beside}" if path is None else str(path.with_name(path.name + beside))


def member_words(profile: Profile, *, number: int, primary: int, primary_url: str, given: str) -> tuple[str, ...]:
    """What makes a server a member. ``given``: the directory with what all members share."""
    cluster = profile.cluster
    words = ["--member", str(number), "--primary", str(primary), "--primary-url", primary_url]
    words += ["--secret-file", f"{given}/{SECRET}", "--root-password-file", f"{given}/{PASSWORD}"]
    words += ["--write-wait", f"{cluster.write_wait:g}"]
    words += [word for index in cluster.files_on_demand for word in ("--files-on-demand", index)]
    return (*words, *(() if cluster.replica_upstream else ("--no-replica-upstream",)))


def leads(words: Sequence[str], primary: int) -> bool:
    """Whether a server with these words is the member ``primary``, as the primary."""
    pairs = set(pairwise(words))
    return ("--member", str(primary)) in pairs and ("--primary", str(primary)) in pairs


def with_words(spec: ContainerSpec, words: tuple[str, ...], *, given: Path | None, relabel: bool) -> ContainerSpec:
    """The server with the words of a member. ``given``: the directory on this host that a container gets."""
    mount = () if given is None else (given_mount(given, relabel=relabel),)
    return replace(spec, command=(*spec.command, *words), mounts=(*spec.mounts, *mount))


def given_mount(directory: Path, *, relabel: bool) -> Mount:
    """What a container reads: a directory of this host."""
    return Mount(kind="bind", source=str(directory), target=GIVEN_TARGET, read_only=True, relabel=relabel)


def _hosts(profile: Profile) -> tuple[str, ...]:
    """The names that members answer: they don't know that their balancer is exposed, where any name may be right."""
    network = profile.network
    named = (*network.hosts, *network.tls.names)
    unknown = not network.bind.is_loopback and not named and not network.outside_url and not network.tls.cert
    return ("*",) if unknown else named


def _metrics(address: str, number: int) -> str:
    """The address for Prometheus: of each member the next port."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number}" if address else ""
