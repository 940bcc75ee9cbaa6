"""``deployer install-service``: a systemd unit that starts a deployment at boot, if its engine does not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from contextlib import ExitStack

    from deployer.deployment.find import Deployment
    from deployer.deployment.service import Service

_TIMERS = ("warm", "backup", "tls")


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    scope: Annotated[
        str, Option("--scope", metavar="SCOPE", help="system (root only) or user; default: system for root.")
    ] = ""
    print: Annotated[bool, Option("--print", help="Print the unit without installing it.")] = False
    undo: Annotated[bool, Option("--undo", help="Remove the unit.")] = False


def run(options: Options, ui: UI) -> Result:
    """Install a systemd unit that starts the server at boot.

    The unit starts the existing deployment on its engine. Root's docker and nerdctl do that without a unit. If the
    profile names files under `warm`, a timer fetches every day what they need; with backup.schedule, a timer takes
    backups, and removes old ones; with HTTPS, a timer gives the server its renewed certificate.
    """
    from contextlib import ExitStack

    from deployer.deployment.find import require
    from deployer.deployment.service import Service
    from deployer.errors import UsageError
    from deployer.operations.unit import unit_text

    scope = options.scope or ("system" if os.getuid() == 0 else "user")
    if scope not in ("system", "user") or (scope == "system" and os.getuid() != 0):
        raise UsageError(f"invalid --scope {scope!r}: use system (root only) or user")
    of = partial(Service.of, options.name, scope=scope, home=Path.home(), env=os.environ)
    server = of()
    timers = {
        kind: (of(suffix=f"-{kind}.service", enabled=False), of(suffix=f"-{kind}.timer", now=True)) for kind in _TIMERS
    }
    if options.undo:
        removed = server.remove()
        for pair in timers.values():
            _remove(pair, ui)
        ui.step("service", f"{server.path} removed" if removed else f"{server.path}: nothing to do")
        return Result(data={"path": str(server.path), "removed": removed})
    deployment = require(options.name, engine=options.engine)
    wanted = _texts(options, deployment)
    units = [(server, unit_text(options.name, deployment.engine.name, scope=scope))]
    for kind, texts in wanted.items():
        units += zip(timers[kind], texts, strict=True)
    if not options.print:
        with ExitStack() as rollback:
            for unit, text in units:
                _install(unit, text, ui, rollback)
            rollback.pop_all()
        for kind, pair in timers.items():
            if kind not in wanted:
                _remove(pair, ui)
    printed = "\n\n".join(text.rstrip("\n") for _, text in units)
    return Result(
        data={
            "path": str(server.path),
            "text": units[0][1],
            "timers": [str(timers[kind][1].path) for kind in wanted],
        },
        text=printed if options.print else "",
    )


def _texts(options: Options, deployment: Deployment) -> dict[str, tuple[str, str]]:
    """The units of each timer that the profile wants: what it runs, and when. Raises UsageError."""
    from deployer.operations.backup import place
    from deployer.operations.recorded import as_deployed
    from deployer.operations.unit import backup_texts, tls_texts, warm_texts
    from deployer.profile.load import load

    ref, held = as_deployed(options.profile, options.name, ())
    profile, engine = load(ref, overrides=held).profile, deployment.engine.name
    found = {}
    if profile.warm:
        found["warm"] = warm_texts(options.name, engine)
    if profile.network.tls.cert:
        found["tls"] = tls_texts(options.name, engine)
    if profile.backup.schedule:
        schedule = place(options.profile, options.name, "").settings.schedule  # the profile must name a directory
        found["backup"] = backup_texts(options.name, engine, schedule=schedule)
    return found


def _remove(pair: tuple[Service, Service], ui: UI) -> None:
    """Remove a timer and what it starts."""
    for unit in reversed(pair):
        if unit.remove():
            ui.step("service", f"{unit.path} removed")


def _install(service: Service, text: str, ui: UI, rollback: ExitStack) -> None:
    from getpass import getuser

    changed = service.install(text)
    if changed:
        rollback.callback(service.remove)
    ui.step(
        "service",
        f"{service.path} " + ("installed (undo: deployer install-service --undo)" if changed else "unchanged"),
    )
    if service.enabled and not service.now and service.scope == "user" and not Path(_LINGER, getuser()).exists():
        hint = f"sudo loginctl enable-linger {getuser()}"
        ui.warn(f"the server starts when {getuser()} logs in; to start it at boot: {hint}")


_LINGER = "/var/lib/systemd/linger"
