"""The record of the last ``up``, applied to a later command: profile, overrides, index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployer.deployment.record import Applied
    from deployer.operations.upgrade.record import Upgraded
    from deployer.plan.facts import Recorded
    from deployer.profile.load import Loaded
    from deployer.profile.load.overrides import Override

DEFAULT_PROFILE = "default"
DEFAULT_NAME = "devpi"
NAME = r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}"
"""The name of a deployment: it names a container, a process and a directory."""

OVERRIDE_KEYS: dict[str, str] = {
    "engine": "engine",
    "network": "network.mode",
    "bind": "network.bind",
    "port": "network.port",
    "data": "data",
    "image": "image.ref",
    "base_image": "image.base",
    "upstream": "indexes.root/pypi.url",
    "index": "clients.index",
    "timeout": "server.ready_timeout",
    "expose": "network.expose",
}
"""The key of the profile that each option overrides."""


def deployed(profile: str, applied: Applied | None) -> tuple[str, tuple[Override, ...]]:
    """Return the profile of a deployment and the overrides of its last ``up``.

    ``profile``: from the command line; if it differs from the recorded one, it applies without recorded overrides.
    """
    from deployer.profile.load.files import reference
    from deployer.profile.load.overrides import Override

    if applied is None or (profile != DEFAULT_PROFILE and reference(profile) != applied.profile_ref):
        return profile, ()
    return applied.profile_ref, tuple(Override(one.key, one.value, one.source) for one in applied.overrides)


def as_deployed(profile: str, name: str, own: Sequence[Override]) -> tuple[str, tuple[Override, ...]]:
    """Return :func:`deployed` with the overrides ``own`` in place of recorded ones. Raises ProfileError."""
    from deployer.deployment.record import read_applied

    ref, held = deployed(profile, read_applied(name))
    keys = {override.key for override in own}
    return ref, (*(override for override in held if override.key not in keys), *own)


def dropped(profile: str, name: str, loaded: Loaded) -> tuple[Override, ...]:
    """Return the overrides of the last ``up`` of the same profile that this command drops."""
    from deployer.deployment.record import read_applied

    applied = read_applied(name)
    if applied is None or applied.profile_ref != loaded.ref:
        return ()
    now, given = loaded.profile.model_dump(mode="json"), {one.key for one in loaded.overrides}
    held = [one for one in deployed(profile, applied)[1] if one.key not in given]
    return tuple(one for one in held if _at(now, one.path) != _at(applied.profile, one.path))


def _at(tree: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def dropped_warning(profile: str, name: str, loaded: Loaded) -> tuple[str, ...]:
    """Warn of options of the last ``up`` that this command lacks: they do not carry over."""
    import shlex

    lost = dropped(profile, name, loaded)
    if not lost:
        return ()
    words = shlex.join(("deployer", "up", *spelt(profile, (*lost, *loaded.overrides), name=name)))
    return (f"this drops options of the last `up`: {', '.join(one.key for one in lost)}; to keep them: {words}",)


def spelt(profile: str, overrides: Sequence[Override], *, name: str = DEFAULT_NAME) -> tuple[str, ...]:
    """Return the command-line options for ``profile``, the deployment ``name`` and ``overrides``."""
    import json

    words = [] if profile == DEFAULT_PROFILE else ["--profile", profile]
    words += [] if name == DEFAULT_NAME else ["--name", name]
    for override in overrides:
        if override.source.startswith("--set "):
            plain = isinstance(override.value, str) and re.fullmatch(r"[\w./:-]+", override.value)
            value = override.value if plain else json.dumps(override.value, ensure_ascii=False)
            words += ["--set", f"{override.key}={value}"]
        elif override.value is True:
            words.append(override.source)
        elif override.key in OVERRIDE_KEYS.values():
            words += [override.source, str(override.value)]
    return tuple(words)


def recorded(applied: Applied | None, upgraded: Upgraded | None = None) -> Recorded | None:
    """Return the data of the last ``up``; None when it is not recorded, or is a throw-away directory.

    ``upgraded``: the record of the last upgrade.
    """
    from deployer.plan.facts import Recorded

    if applied is None or not applied.data_uuid or applied.profile.get("data") == "temp":
        return None
    return Recorded(
        source=applied.data_source,
        uuid=applied.data_uuid,
        upgrading=upgraded.to if upgraded is not None and not upgraded.kept else "",
        former=upgraded.applied.data_uuid if upgraded is not None else "",
    )


def client_index(name: str) -> str:
    """Return the index that the clients of the deployment ``name`` use. Raises UsageError when it is not recorded."""
    from deployer.deployment.record import read_applied
    from deployer.errors import UsageError

    applied = read_applied(name)
    found = applied.simple_url.partition("/+simple")[0].split("/")[-2:] if applied else []
    if len(found) != 2:
        raise UsageError(f"no index of the clients of {name!r} is recorded", hint="add --index USER/NAME")
    return "/".join(found)
