"""``deployer index export``: the users and indexes of a server as a profile."""

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

    The profile declares the users and indexes of the server exactly, without passwords.
    """
    import yaml

    from deployer.deployment.credentials import mirrors
    from deployer.devpi.export import exported

    with connect(options) as session:
        topology = session.api.topology()
        applied = session.deployment.applied if session.deployment else None
        declared = {
            "extends": "default",
            **_server(session.api.codec),
            **exported(topology, meant=applied.profile if applied else None),
        }
        text = yaml.safe_dump(declared, sort_keys=False, allow_unicode=True)
        place = session.deployment.server_dir if session.deployment else None
        if "clients" in declared and not applied:
            ui.warn(f"clients.index: {declared['clients']['index']} is a guess: no index of clients is recorded")
        used = mirrors(place) if place else frozenset()
        warnings = (*_unknown(declared, used), *_warnings(topology, declared, text, session.api.codec))
    return Result(data=declared, text=text, warnings=warnings)


def _server(codec: IndexCodec) -> dict[str, object]:
    """Return the profile keys for a server version other than the default."""
    from deployer.image import DEFAULT_MAJOR

    major = str(codec.major)
    return {} if major == DEFAULT_MAJOR else {"server": {"version": major}}


def _unknown(declared: dict[str, Any], used: frozenset[str]) -> Iterator[str]:
    """Warn of mirrors with credentials whose source this host does not know."""
    for name, index in declared["indexes"].items():
        if index and "credentials" not in index and str(index.get("url")).rstrip("/") in used:
            yield f"{name}: the source of its credentials is unknown: add credentials: to the profile"


def _warnings(topology: Topology, declared: dict[str, Any], text: str, codec: IndexCodec) -> Iterator[str]:
    """Warn of each difference between the exported profile and the server; the profile is loaded again to compare."""
    from deployer.devpi.declared import wanted
    from deployer.devpi.difference import changes
    from deployer.devpi.export import hidden_credentials, refused
    from deployer.errors import DeployerError
    from deployer.profile.load import load

    hidden = hidden_credentials(topology)
    for name in hidden:
        yield f"{name}: credentials in the URL on the server are left out; see SECURITY.md"
    for name in sorted(topology.indexes.keys() - declared["indexes"].keys()):
        yield f"{name} is left out: a profile does not support its type"
    for name, mirrors in refused(topology, declared).items():
        both = " and ".join(mirrors)
        yield f"{name} merges the mirrors {both}, which `up` refuses; see docs/how-to/private-packages.md"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exported.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            profile = load(str(path)).profile
            goal = wanted(profile.users, profile.indexes, default_mirror_url="").fit(codec)
            differing = changes(topology, goal)
        except DeployerError as error:
            for line in (error.message, *error.details):
                yield line.replace(str(path), "exported profile")
            return
    for change in differing:
        if change.target not in hidden:
            yield f"a profile can't express this: {change.text}"
