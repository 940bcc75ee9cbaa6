"""``deployer plan``: everything that ``up`` would do, and nothing done."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployer.commands import Overrides, overrides, spelt, told_before
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.prepare import Prepared


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show all that `up` would do, and change nothing.

    Every step, with the exact command that would be run.
    Exit code 10 when `up` would change something, 0 when it would not.
    """
    from deployer.errors import DriftError
    from deployer.operations.prepare import measured, prepare

    prepared = prepare(options.profile, options.name, overrides=overrides(options))
    if prepared.plan.network.open and not _image(prepared)[1]:
        prepared = measured(prepared)
    steps = _steps(prepared)
    changing = [name for name, (_, changes) in steps.items() if changes]
    text = "\n".join(f"{name.ljust(10)}{line}" for name, (lines, _) in steps.items() for line in lines)
    return Result(
        data={
            "engine": prepared.plan.engine.name,
            "argv": list(_argv(prepared)),
            "spec_sha256": prepared.plan.spec.sha256(),
            "url": prepared.plan.url,
            "simple_url": prepared.plan.simple_url,
            "steps": {name: lines for name, (lines, _) in steps.items()},
            "changes": changing,
        },
        text=text,
        warnings=(*prepared.plan.warnings, *told_before(options, prepared.loaded)),
        error=DriftError(f"up would change: {', '.join(changing)}", hint=_up(options, prepared)) if changing else None,
    )


def _up(options: Options, prepared: Prepared) -> str:
    """The `up` that this is the plan of."""
    from deployer.spec import LABEL_PROFILE

    words = ["deployer", "up", *spelt(options.profile, prepared.loaded.overrides, name=options.name)]
    current, profile = prepared.current, prepared.plan.profile_name
    if current is not None and current.labels.get(LABEL_PROFILE, profile) != profile:
        words.append("--replace")
    return shlex.join(words)


def due(prepared: Prepared) -> list[str]:
    """The names of the steps that would change something of the deployment itself (client files aside)."""
    return [name for name, (_, changes) in _steps(prepared).items() if changes and name != "pip"]


def _argv(prepared: Prepared) -> tuple[str, ...]:
    from deployer.render import run_argv

    return run_argv(prepared.plan.spec, prepared.plan.engine.name)


def _steps(prepared: Prepared) -> dict[str, tuple[list[str], bool]]:
    """Each step's lines, and whether it would change anything."""
    from deployer.commands.up import differences
    from deployer.operations.apply import is_current
    from deployer.spec import State

    plan, current = prepared.plan, prepared.current
    info, passed = prepared.detection.info, prepared.detection.passed_over
    same = is_current(plan, current, prepared.image) and current is not None and current.state is State.RUNNING
    steps: dict[str, tuple[list[str], bool]] = {
        "engine": ([f"{info.name} {info.version}", *(f"not {name}: {why}" for name, why in passed)], False)
    }
    if plan.image is not None:
        # A server that stays needs no image.
        steps["image"] = ([f"{plan.image.ref} (in use)"], False) if same else _image(prepared)
    where = f"volume {plan.data.source}" if plan.data.kind == "volume" else plan.data.source
    what = "create, 0700" if plan.data.create else "close to others, 0700" if plan.data.tighten else "as it is"
    steps["data"] = ([f"{where} ({what})"], plan.data.create or plan.data.tighten)
    steps["network"] = ([f"{plan.network.mode} ({plan.network.reason})"], False)
    if same:
        steps["server"] = ([f"{plan.name} runs as planned at {plan.url}"], False)
    else:
        why = [] if current is None else list(differences(prepared))
        steps["server"] = ([*why, shlex.join(_argv(prepared))], True)
    steps["indexes"] = _indexes(prepared)
    steps["pip"] = _pip(prepared)
    return steps


def _image(prepared: Prepared) -> tuple[list[str], bool]:
    from deployer.operations.apply import fits

    wanted, image = prepared.plan.image, prepared.image
    assert wanted is not None  # noqa: S101 - narrowed by the caller
    if wanted.own and (image is None or not fits(wanted, image)):
        return [f"{wanted.ref} ({'build' if image is None else 'build anew'})"], True
    return [f"{wanted.ref} ({'present' if image else 'pull'})"], image is None


def _indexes(prepared: Prepared) -> tuple[list[str], bool]:
    from deployer.devpi.api import DevpiApi
    from deployer.devpi.change import Kind
    from deployer.devpi.converge import steps
    from deployer.devpi.declared import wanted
    from deployer.devpi.difference import compare
    from deployer.devpi.topology import EMPTY
    from deployer.spec import LABEL_URL, State

    plan, container = prepared.plan, prepared.current
    target = wanted(plan.users, plan.indexes, default_mirror_url=plan.default_upstream or "(the server's own default)")
    if container is not None and container.state is State.RUNNING:
        # Asked where it answers now, which may not be where it is planned to be.
        with DevpiApi(container.labels[LABEL_URL]) as api:
            found = steps(api, target)
    elif plan.data.create:
        found = compare(EMPTY, target)
    else:
        return ["compared with the profile once the server runs"], False
    told = [change.text for change in found if change.kind is not Kind.UNCHANGED]
    return told or ["unchanged"], any(change.due for change in found)


def _pip(prepared: Prepared) -> tuple[list[str], bool]:
    from deployer.clients import pip
    from deployer.commands.up import pip_settings

    plan = prepared.plan
    if "pip" not in plan.clients.configure:
        return ["left alone"], False
    change = pip.preview(pip_settings(plan), scope=plan.clients.scope, env=os.environ)
    return [f"{change.path}: {'index-url, timeout' if change.changed else 'unchanged'}"], change.changed
