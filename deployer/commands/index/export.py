"""``deployer index export``: the running state as a profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.devpi.fields import IndexCodec
    from deployer.devpi.topology import Topology


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    pass


def run(options: Options, ui: UI) -> Result:
    """Print users and indexes of the server as a profile.

    What is printed declares exactly what runs; passwords are not in it.
    """
    import yaml

    from deployer.deployment.credentials import mirrors
    from deployer.devpi.export import exported

    with connect(options) as session:
        topology = session.api.topology()
        applied = session.deployment.applied if session.deployment else None
        told = {
            "extends": "default",
            **_server(session.api.codec),
            **exported(topology, meant=applied.profile if applied else None),
        }
        text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
        place = session.deployment.server_dir if session.deployment else None
        if "clients" in told and not applied:
            ui.warn(f"clients.index: {told['clients']['index']}, as this host does not know which one is used")
        used = mirrors(place) if place else frozenset()
        warnings = (*_unknown(told, used), *_warnings(topology, told, text, session.api.codec))
    return Result(data=told, text=text, warnings=warnings)


def _server(codec: IndexCodec) -> dict[str, object]:
    """What a profile has to say for a server of this version, where it is not the default."""
    from deployer.image import DEFAULT_MAJOR

    major = str(codec.major)
    return {} if major == DEFAULT_MAJOR else {"server": {"version": major}}


def _unknown(told: dict[str, Any], used: frozenset[str]) -> Iterator[str]:
    """Mirrors that are sent credentials, of which this host has no reference any more."""
    for name, said in told["indexes"].items():
        if said and "credentials" not in said and str(said.get("url")).rstrip("/") in used:
            yield f"{name}: it is sent credentials, and where they are from is not known here: add credentials:"


def _warnings(topology: Topology, told: dict[str, Any], text: str, codec: IndexCodec) -> Iterator[str]:
    """All in which the profile is not, or can't be, what runs: it is read again, as `plan` would."""
    from deployer.devpi.declared import wanted
    from deployer.devpi.difference import changes
    from deployer.devpi.export import hidden_credentials, refused
    from deployer.errors import DeployerError
    from deployer.profile.load import load

    hidden = hidden_credentials(topology)
    for name in hidden:
        yield f"{name}: the address on the server holds credentials, which are left out; see SECURITY.md"
    for name in sorted(topology.indexes.keys() - told["indexes"].keys()):
        yield f"{name} is left out: no profile has its type"
    for name, mirrors in refused(topology, told).items():
        yield f"{name} merges the mirrors {' and '.join(mirrors)}, which `up` refuses; see docs/private-packages.md"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exported.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            profile = load(str(path)).profile
            goal = wanted(profile.users, profile.indexes, default_mirror_url="").fit(codec)
            differing = changes(topology, goal)
        except DeployerError as error:
            for line in (error.message, *error.details):
                yield line.replace(str(path), "what is printed")
            return
    for change in differing:
        if change.target not in hidden:
            yield f"no profile can say it as it is: {change.text}"
