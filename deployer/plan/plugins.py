"""The plugins of a profile: whether the lock file fits, and the options that the server gets. Pure."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import ProfileError, Refused
from deployer.plan.facts import Facts, PluginFacts
from deployer.spec import Mount

if TYPE_CHECKING:
    from deployer.profile.models import OptionFile, Profile

FILES_TARGET = "/etc/deployer/options"
OF_PLUGINS = ("plugins", "options", "option_files")
"""The keys of ``server`` that are about plugins."""
LOCK = "deployer plugins lock"


@dataclass(frozen=True, kw_only=True)
class PluginPlan:
    """``lock``: what is installed. ``environment``: where, for a process; None in an image.

    ``files``: directory of this host with the files of options, and ``contents``: what they are made of.
    """

    lock: str
    environment: Path | None
    files: Path
    contents: Mapping[str, OptionFile] = field(default_factory=dict)


def named(profile: Profile) -> bool:
    """Whether a profile says anything about plugins."""
    return any(getattr(profile.server, key) for key in OF_PLUGINS)


def again(found: PluginFacts, profile: Profile) -> str:
    """The command that makes the lock. The version may be that of an upgrade, and not in the file of the profile."""
    from deployer.profile.models import Server

    version = profile.server.version
    other = () if version == Server().version else ("--set", f"server.version={version}")
    return shlex.join((*LOCK.split(), "--profile", str(found.profile), *other))


def head(profile: Profile) -> str:
    """The first line of the lock of a profile: what it was made for."""
    return f"# {LOCK}: devpi-server {profile.server.version} with {' '.join(sorted(profile.server.plugins))}"


def check_plugins(profile: Profile, facts: Facts) -> None:
    """Raise Refused for another image, ProfileError when the lock is not that of the profile, or a file is missing."""
    found = facts.plugins
    if found is None:
        return
    if profile.image.ref:
        raise Refused(
            f"{profile.image.ref} is not built by deployer, so server.plugins and their options have no effect",
            hint="remove image.ref: deployer's own image has the plugins",
        )
    if profile.server.plugins and not found.lock.startswith(head(profile) + "\n"):
        why = "does not list the plugins of the profile" if found.lock else "is missing"
        raise ProfileError(f"{found.lock_file} {why}: {', '.join(profile.server.plugins)}", hint=again(found, profile))
    both = [name for name in profile.server.option_files if name in profile.server.options]
    if both:
        raise ProfileError(f"server.options and server.option_files have {both[0]}", hint="remove one of them")
    for name, digest in found.digests.items():
        if not digest:
            raise ProfileError(
                f"server.option_files.{name}: {profile.server.option_files[name].file} can't be read",
                hint="name a file that this user may read",
            )


def plan_plugins(profile: Profile, facts: Facts) -> PluginPlan | None:
    """What has to be there before the server starts."""
    found = facts.plugins
    if found is None:
        return None
    apart = profile.server.plugins and not facts.engine.features.containers
    return PluginPlan(
        lock=found.lock if profile.server.plugins else "",
        environment=found.environment if apart else None,
        files=_files(profile, facts),
        contents=profile.server.option_files,
    )


def arguments(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """The words of the command line for plugins: their names, their directory, their own options."""
    server, made = profile.server, plan_plugins(profile, facts)
    if made is None:
        return ()
    words = [word for pin in server.plugins for word in ("--plugin", pin)]
    if made.environment is not None:
        words += ["--plugins-in", str(made.environment)]
    inside = FILES_TARGET if facts.engine.features.containers else str(made.files)
    files = {name: f"{inside}/{name}" for name in server.option_files}
    words += [word for name, value in {**server.options, **files}.items() for word in ("--option", f"{name}={value}")]
    return tuple(words)


def mounts(profile: Profile, facts: Facts) -> tuple[Mount, ...]:
    """The files of options, for a container."""
    if not profile.server.option_files or not facts.engine.features.containers:
        return ()
    source = str(_files(profile, facts))
    return (Mount(kind="bind", source=source, target=FILES_TARGET, read_only=True, relabel=facts.selinux),)


def _files(profile: Profile, facts: Facts) -> Path:
    """The directory of the files: another one for other contents, so that the former server keeps its own."""
    found = facts.plugins
    assert found is not None  # noqa: S101 - asked only where there are plugins
    told = {name: (found.digests.get(name), one.secrets) for name, one in profile.server.option_files.items()}
    return found.files / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
