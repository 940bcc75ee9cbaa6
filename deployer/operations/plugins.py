"""The plugins of a profile: their lock, and the environment of a process."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deployer.errors import ProfileError, UsageError
from deployer.files import make_private, replacing
from deployer.host.plugins import ENVIRONMENTS, OPTIONS, lock_file, plugin_facts
from deployer.operations.pip_wheels import pip_wheels
from deployer.plan.plugins import PluginPlan, again, head

if TYPE_CHECKING:
    from deployer.profile.load import Loaded


@dataclass(frozen=True, kw_only=True)
class Locked:
    """``hashes``: SHA-256 of the wheels of each project, by NAME==VERSION."""

    path: Path
    hashes: Mapping[str, Sequence[str]]
    changed: bool


def lock_of(loaded: Loaded, name: str = "") -> str:
    """The lock of a profile's plugins; empty where it names none. Raises ProfileError when it is another's."""
    profile = loaded.profile
    found = plugin_facts(profile, loaded.files, name=name) if profile.server.plugins else None
    if found is not None and not found.lock.startswith(head(profile) + "\n"):
        raise ProfileError(f"{found.lock_file} does not list the plugins of the profile", hint=again(found, profile))
    return found.lock if found is not None else ""


def lock(loaded: Loaded, name: str) -> Locked:
    """Find what the plugins of a profile need beside the server, and write the lock: versions and hashes of wheels.

    Raises UsageError, EngineUnreachable, ImageUnavailable.
    """
    from deployer.image import locked_versions

    profile = loaded.profile
    if not profile.server.plugins:
        hint = "list them with their versions: server: {plugins: [devpi-ldap==2.2.0]}"
        raise UsageError(f"the profile {loaded.name} has no plugins", hint=hint)
    there = locked_versions(profile.server.version)
    server = {pin.partition("==")[0] for pin in there}
    hashes: dict[str, list[str]] = {}
    with pip_wheels() as pip:
        for pin, wheel in sorted(pip.resolve(profile.server.plugins, constraints=there).items()):
            if pin.partition("==")[0] not in server:
                others = () if wheel.is_pure else pip.others(pin)
                hashes[pin] = sorted({wheel.sha256, *(other.sha256 for other in others)})
    lines = (" \\\n    ".join((pin, *(f"--hash=sha256:{one}" for one in found))) for pin, found in hashes.items())
    text = "\n".join((head(profile), *lines, ""))
    path = lock_file(loaded.files, name)
    changed = not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text
    if changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(text.encode())
    return Locked(path=path, hashes=hashes, changed=changed)


def have_environment(plugins: PluginPlan | None) -> bool:
    """Install what the lock names into the environment of a process; return whether that was needed.

    Raises EngineUnreachable, ImageUnavailable.
    """
    target = plugins.environment if plugins is not None else None
    if plugins is None or target is None or (target.exists() and not absent(plugins)):
        return False
    make_private(target.parent)
    with TemporaryDirectory(dir=target.parent, prefix=".new-") as directory, pip_wheels() as pip:
        made = Path(directory) / "made"
        pip.install(plugins.lock, made)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return True


def absent(plugins: PluginPlan) -> tuple[str, ...]:
    """What the environment of a process lacks of the lock, as NAME==VERSION."""
    own = _by_name(distributions(path=[str(plugins.environment)]))
    pins = (pin.partition("==") for pin in re.findall(r"^([a-z0-9-]+==\S+)", plugins.lock, re.MULTILINE))
    return tuple(f"{name}=={version}" for name, _, version in pins if name not in own or own[name].version != version)


def unfit(plugins: PluginPlan) -> tuple[str, ...]:
    """What plugins in the environment of a process need, and this Python does not have."""
    own = _by_name(distributions(path=[str(plugins.environment)]))
    known = own | _by_name(distributions())
    return tuple(line for one in own.values() for line in _unfit(one, known))


def _by_name(found: Iterable[Distribution]) -> dict[str, Distribution]:
    from packaging.utils import canonicalize_name

    return {str(canonicalize_name(one.name)): one for one in found}


def _unfit(one: Distribution, known: Mapping[str, Distribution]) -> Iterator[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for needed in map(Requirement, one.requires or ()):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        got = known.get(canonicalize_name(needed.name))
        if got is None or not needed.specifier.contains(got.version, prereleases=True):
            yield f"{one.name} needs {needed}, and finds {got.version if got else 'none'}"


def tidy(plugins: PluginPlan | None, directory: Path) -> None:
    """Remove environments and files of former plans from the state ``directory`` of the deployment."""
    kept = (plugins.environment, plugins.files) if plugins is not None else ()
    for parent in (directory / ENVIRONMENTS, directory / OPTIONS):
        for path in parent.glob("*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            parent.rmdir()
