"""``deployer index export``: the running state as a profile."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Talking, connect
from deployer.ui import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    pass


def run(options: Options, ui: UI) -> Result:
    """Print users and indexes of the server as a profile.

    What is printed declares exactly what runs; passwords are not in it.
    """
    import yaml

    from deployer.devpi.declared import exported, hidden_credentials

    with connect(options) as session:
        topology = session.api.topology()
    told = {"extends": "default", **exported(topology)}
    warnings = [
        f"{name}: the address on the server holds credentials, which are left out; see SECURITY.md"
        for name in hidden_credentials(topology)
    ]
    unknown = sorted(topology.indexes.keys() - told["indexes"].keys())
    warnings += [f"{name} is left out: no profile has its type" for name in unknown]
    return Result(data=told, text=yaml.safe_dump(told, sort_keys=False, allow_unicode=True), warnings=tuple(warnings))
