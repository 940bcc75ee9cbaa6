"""``deployer install-service``: have systemd start a deployment at boot, where its engine does not do that."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.service import Service


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    scope: Annotated[
        str, Option("--scope", metavar="SCOPE", help="system (root's own) or user; default: by who you are.")
    ] = ""
    print: Annotated[bool, Option("--print", help="Only print the unit.")] = False
    undo: Annotated[bool, Option("--undo", help="Take the unit away again.")] = False


def run(options: Options, ui: UI) -> Result:
    """Have systemd start the server at boot.

    The unit starts the deployment as it is, with its engine. docker and nerdctl of root do that by themselves.
    """
    from deployer.deployment.find import require
    from deployer.deployment.service import Service
    from deployer.errors import UsageError
    from deployer.operations.unit import unit_text

    scope = options.scope or ("system" if os.getuid() == 0 else "user")
    if scope not in ("system", "user") or (scope == "system" and os.getuid() != 0):
        raise UsageError("--scope is system (for root) or user")
    service = Service.of(options.name, scope=scope, home=Path.home(), env=os.environ)
    if options.undo:
        removed = service.remove()
        ui.step("service", f"{service.path} removed" if removed else f"{service.path}: nothing to do")
        return Result(data={"path": str(service.path), "removed": removed})
    text = unit_text(options.name, require(options.name, engine=options.engine).engine.name, scope=scope)
    if not options.print:
        _install(service, text, ui)
    return Result(data={"path": str(service.path), "text": text}, text=text.rstrip("\n") if options.print else "")


def _install(service: Service, text: str, ui: UI) -> None:
    from getpass import getuser

    changed = service.install(text)
    ui.step(
        "service", f"{service.path} " + ("enabled (undo: deployer install-service --undo)" if changed else "unchanged")
    )
    if service.scope == "user" and not Path("/var/lib/systemd/linger", getuser()).exists():
        hint = f"sudo loginctl enable-linger {getuser()}"
        ui.warn(f"it starts when {getuser()} logs in; at boot already after: {hint}")
