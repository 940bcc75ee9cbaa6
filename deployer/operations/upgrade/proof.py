"""Prove converted data on a scratch server, before the switch: users and indexes are the same, and pip installs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deployer.clients.installers import install
from deployer.deployment.find import Deployment
from deployer.devpi.api import DevpiApi
from deployer.devpi.export import exported
from deployer.devpi.topology import Topology
from deployer.engines.base import Engine
from deployer.errors import ConflictError, VerificationError
from deployer.operations.prepare import Prepared, prepare
from deployer.plan.facts import Facts
from deployer.profile.load.overrides import Override
from deployer.protocol import UpgradePath
from deployer.readiness import wait
from deployer.secrets import Secret
from deployer.spec import EngineName, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

_NOT_IN_7 = frozenset({"core_metadata", "ignore_serial"})
"""Keys of indexes that devpi-server 7 has no field for: it does so for all."""
_DEFAULTS = {"mirror_whitelist_inheritance": "intersection"}
"""Values that devpi-server 7 does not store."""


def prove(
    deployment: Deployment, prepared: Prepared, ref: str, overrides: Sequence[Override], wheel: str, ui: UI
) -> None:
    """``overrides``: of the upgraded deployment. ``wheel``: path of an upload. Raises VerificationError."""
    scratch = _scratch(prepared, ref, overrides)
    name, place = scratch.plan.name, scratch.server_dir
    with ExitStack() as stack:
        stack.callback(scratch.engine.remove, name)
        scratch.engine.run(replace(scratch.plan.spec, restart="no"))
        with ui.working("proof", scratch.plan.url):
            ready = wait(
                url=scratch.plan.url,
                engine=scratch.engine,
                name=name,
                expected_uuid=place.uuid,
                proof_key=place.proof_key,
                credentials=lambda: place.root_password() or Secret(""),
                index=None,
                deadline=scratch.plan.ready_timeout,
                on_stage=lambda _stage, _seconds: None,
            )
            with ready.api as api:
                if deployment.container.state is State.RUNNING:
                    with DevpiApi(deployment.url) as old:
                        _compare(old.topology(), api.topology())
            installed = _installed(scratch, wheel)
    and_pip = f", pip installed {installed}" if installed else ""
    ui.step("proof", f"the new server answers, root can log in, every index is there{and_pip}")


def scratch_name(name: str) -> str:
    return f"{name[:50]}-next"


def remove_scratch(engine: Engine, name: str) -> None:
    """Remove the scratch server that a killed run has left. Raises ConflictError for one that is not ours."""
    scratch = scratch_name(name)
    found = engine.inspect(scratch)
    if found is not None and not found.ours:
        raise ConflictError(f"a container named {scratch!r} is not deployer's", hint=f"rename or remove {scratch}")
    engine.remove(scratch)


def _scratch(prepared: Prepared, ref: str, overrides: Sequence[Override]) -> Prepared:
    values: dict[str, object] = {
        "engine": str(prepared.engine.name),
        "data": f"{prepared.plan.data.source}/{UpgradePath.NEXT}",
        "network.port": 0,
        "network.bind": "127.0.0.1",
        "network.outside_url": "",
        "network.tls.cert": "",
        "network.tls.key": "",
        "server.offline": True,
        "server.metrics": "",
        "server.min_free": "",
    }
    if prepared.engine.name != EngineName.PROCESS:
        values["network.mode"] = "bridge"
    own = [Override(key, value, "upgrade") for key, value in values.items()]
    held = [one for one in overrides if one.key not in values]

    def inside(facts: Facts) -> Facts:
        """It is inside the data directory of the server, and meant to be."""
        return replace(facts, data=replace(facts.data, within=None)) if facts.data is not None else facts

    return prepare(
        ref, scratch_name(prepared.plan.name), overrides=(*held, *own), moving=True, new_data=True, adjust=inside
    )


def _compare(old: Topology, new: Topology) -> None:
    """Raises VerificationError for a user or an index that is not the same."""
    before, after = exported(old), exported(new)
    for kind in ("users", "indexes"):
        for name in {*before[kind], *after[kind]}:
            if _said(before[kind].get(name)) != _said(after[kind].get(name)):
                raise VerificationError(
                    f"{name} is not the same on the new server",
                    hint="run deployer upgrade again; it may have been changed meanwhile",
                    details=(f"before: {before[kind].get(name)}", f"after: {after[kind].get(name)}"),
                )


def _said(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {key: value for key, value in node.items() if key not in _NOT_IN_7 and value != _DEFAULTS.get(key, object)}


def _installed(scratch: Prepared, wheel: str) -> str:
    """Install an upload from the scratch server; its name, empty where there is none or no pip."""
    if not wheel:
        return ""
    user, index = wheel.split("/")[:2]
    filename = wheel.rpartition("/")[2]
    failed = install(f"{scratch.plan.url}/{user}/{index}/+simple/", filename)
    if failed:
        raise VerificationError(
            f"pip can't install {filename} from the new server",
            hint="the server runs as before; deployer check",
            details=tuple(failed.splitlines()[-5:]),
        )
    return "" if failed is None else filename
