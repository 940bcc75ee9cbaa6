"""``deployer install-service``: a systemd unit that starts a deployment at boot, if its engine does not."""

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
        str, Option("--scope", metavar="SCOPE", help="system (root only) or user; default: system for root.")
    ] = ""
    print: Annotated[bool, Option("--print", help="Print the unit without installing it.")] = False
    undo: Annotated[bool, Option("--undo", help="Remove the unit.")] = False


def run(options: Options, ui: UI) -> Result:
    """Install a systemd unit that starts the server at boot.

    The unit starts the existing deployment on its engine. Root's docker and nerdctl do that without a unit.
    """
    from deployer.deployment.find import require
    from deployer.deployment.service import Service
    from deployer.errors import UsageError
    from deployer.operations.unit import unit_text

    scope = options.scope or ("system" if os.getuid() == 0 else "user")
    if scope not in ("system", "user") or (scope == "system" and os.getuid() != 0):
        raise UsageError(f"invalid --scope {scope!r}: use system (root only) or user")
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
        ui.warn(f"the server starts when {getuser()} logs in; to start it at boot: {hint}")
