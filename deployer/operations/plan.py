"""The steps of ``up``, each with its changes, without any effect."""

from __future__ import annotations

import secrets
import shlex
from contextlib import suppress
from typing import TypeAlias

from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.passwords import ROOT
from deployer.devpi.api import DevpiApi
from deployer.devpi.change import Kind
from deployer.devpi.converge import steps as converging
from deployer.devpi.declared import wanted
from deployer.devpi.difference import compare
from deployer.devpi.topology import EMPTY
from deployer.errors import DeployerError
from deployer.operations import client_files
from deployer.operations.apply import changes_in_place, is_current
from deployer.operations.differences import differences
from deployer.operations.images import fits
from deployer.operations.prepare import Prepared, measured
from deployer.operations.tls import differs
from deployer.readiness import check_ours
from deployer.render import run_argv
from deployer.spec import LABEL_URL, State

Step: TypeAlias = tuple[list[str], bool]
"""The lines of a step, and whether it changes anything."""


def decided(prepared: Prepared) -> Prepared:
    """Measure the network if it is undecided and the image for the measurement is present."""
    if prepared.plan.network.open and not image_step(prepared)[1]:
        return measured(prepared)
    return prepared


def due(prepared: Prepared) -> list[str]:
    """The names of the steps that would change something of the deployment itself (client files aside)."""
    return [name for name, (_, changes) in steps(prepared).items() if changes and name not in CLIENT_FILES]


def argv(prepared: Prepared) -> tuple[str, ...]:
    """Return the argv that starts the planned container."""
    return run_argv(prepared.plan.spec, prepared.plan.engine.name)


def steps(prepared: Prepared) -> dict[str, Step]:
    """Return each step by its name."""
    plan, current = prepared.plan, prepared.current
    info, passed = prepared.detection.info, prepared.detection.passed_over
    runs = current is not None and current.state is State.RUNNING and not plan.data.begin
    same = runs and is_current(plan, current, prepared.image)
    found: dict[str, Step] = {
        "engine": ([f"{info.name} {info.version}", *(f"not {name}: {why}" for name, why in passed)], False)
    }
    if plan.image is not None:
        # An unchanged server needs no image.
        found["image"] = ([f"{plan.image.ref} (in use)"], False) if same else image_step(prepared)
    where = f"volume {plan.data.source}" if plan.data.kind == "volume" else plan.data.source
    what = "create, 0700" if plan.data.create else "set mode 0700" if plan.data.tighten else "unchanged"
    found["data"] = ([f"{where} ({what})"], plan.data.create or plan.data.tighten)
    found["network"] = ([f"{plan.network.mode} ({plan.network.reason})"], False)
    if same:
        found["server"] = ([f"{plan.name} runs as planned at {plan.url}"], False)
    else:
        why = [] if current is None else list(differences(prepared))
        in_place = current is not None and changes_in_place(plan, current, prepared.image)
        how = "changed while it serves" if in_place else shlex.join(argv(prepared))
        found["server"] = ([*why, how], True)
    if (certificate := differs(prepared)) is not None:
        found["tls"] = ([certificate[0]], certificate[1])
    found["indexes"] = _indexes(prepared)
    return {**found, **_clients(prepared)}


def image_step(prepared: Prepared) -> Step:
    """Return the step of the image. The plan must have one."""
    wanted, image = prepared.plan.image, prepared.image
    assert wanted is not None  # noqa: S101 - narrowed by the caller
    if wanted.own and (image is None or not fits(wanted, image)):
        return [f"{wanted.ref} ({'build' if image is None else 'rebuild'})"], True
    return [f"{wanted.ref} ({'present' if image else 'pull'})"], image is None


def _indexes(prepared: Prepared) -> Step:
    plan, container = prepared.plan, prepared.current
    target = wanted(
        plan.users, plan.indexes, default_mirror_url=plan.default_upstream or "(the default of devpi-server)"
    )
    if container is not None and container.state is State.RUNNING:
        # The current URL, which may differ from the planned one.
        with DevpiApi(container.labels[LABEL_URL]) as api:
            _introduce(prepared, api)
            found = converging(api, target)
    elif plan.data.create:
        found = compare(EMPTY, target)
    else:
        return ["compared when the server runs"], False
    lines = [change.text for change in found if change.kind is not Kind.UNCHANGED]
    return lines or ["unchanged"], any(change.due for change in found)


def _introduce(prepared: Prepared, api: DevpiApi) -> None:
    """Have ``api`` read what not everybody may read, if the server proves that it is ours."""
    nonce, place = secrets.token_hex(16), prepared.server_dir
    with suppress(DeployerError):
        if check_ours(api.url, api.identity(nonce), nonce=nonce, uuid=place.uuid(), key=place.proof_key()):
            api.read_as(ROOT, prepared.passwords.known(ROOT))


def _clients(prepared: Prepared) -> dict[str, Step]:
    """Return what ``up`` would do with the files of clients."""
    found: dict[str, Step] = {"pip": (["left alone"], False)}
    for name, change in client_files.preview(prepared.plan).items():
        keys = ", ".join(change.keys)
        found[name] = ([f"{change.path}: {keys if change.changed else 'unchanged'}"], change.changed)
    return found
