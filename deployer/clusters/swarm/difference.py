"""What differs between a stack as it is wanted and as it runs, and in which order it is changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.clusters.swarm import names
from deployer.clusters.swarm.answers import Service
from deployer.spec import LABEL_SPEC


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Parts of a stack: to make, to replace in this order, and to remove after that. ``lines``: for people."""

    made: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    lines: tuple[str, ...]


def compare(document: Mapping[str, Any], found: Sequence[Service], primary: int) -> Difference:
    """Replicas are replaced one by one, the primary after them, and then the balancers.

    Where another member has become the primary, it is replaced first: the others follow it.
    """
    services, there = document["services"], {service.part: service for service in found}
    made = tuple(part for part in services if part not in there)
    changed = [part for part in services if part in there and _differs(services[part], there[part])]
    leader = names.member(primary)
    promoted = any(service.labels.get(names.LABEL_PRIMARY) != str(primary) for service in found)
    replaced = sorted(changed, key=lambda part: (_kind(part) != "member", (part == leader) != promoted))
    removed = tuple(part for part in there if part not in services)
    lines = (
        *(f"{part}: create" for part in made),
        *(f"{part}: {_how(services[part], there[part])}" for part in replaced),
        *(f"{part}: remove{'; its volume is kept' if _kind(part) == 'member' else ''}" for part in removed),
    )
    return Difference(made=made, replaced=tuple(replaced), removed=removed, lines=lines)


def _kind(part: str) -> str:
    return part.partition("-")[0]


def _differs(service: Mapping[str, Any], there: Service) -> bool:
    return bool(service["labels"][LABEL_SPEC] != there.digest or service["deploy"]["replicas"] != there.replicas)


def _how(service: Mapping[str, Any], there: Service) -> str:
    if service["labels"][LABEL_SPEC] == there.digest:
        return "start" if service["deploy"]["replicas"] else "stop"
    former = there.image.partition("@")[0]
    where = service["deploy"]["placement"]["constraints"][0]
    if former != service["image"]:
        return f"replace: image {former} -> {service['image']}"
    return f"replace: {there.constraint} -> {where}" if there.constraint != where else "replace: other settings"


def part_of(document: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """The document with some of its services alone: docker leaves the others of the stack as they are."""
    services = {part: document["services"][part] for part in parts}
    used = {volume["source"] for service in services.values() for volume in service["volumes"] if "source" in volume}
    volumes = {name: volume for name, volume in document["volumes"].items() if name in used}
    secrets = {
        name: secret
        for name, secret in document["secrets"].items()
        if any(name == one["source"] for service in services.values() for one in service.get("secrets", ()))
    }
    return {**document, "services": services, "volumes": volumes, "secrets": secrets}
