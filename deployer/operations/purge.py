"""Remove a deployment, and its data when that is wanted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.clients import pip
from deployer.deployment.find import Deployment
from deployer.deployment.record import read_applied
from deployer.deployment.service import Service
from deployer.engines import detect
from deployer.errors import ConflictError, Refused
from deployer.host.gather import data_facts
from deployer.operations.images import remove_former
from deployer.operations.start import STOP
from deployer.plan.data import data_path
from deployer.plan.facts import Content
from deployer.spec import PREVIOUS, THROW_AWAY, Mount

if TYPE_CHECKING:
    from deployer.ui.output import UI


def data_of(name: str, deployment: Deployment | None) -> Mount | None:
    """Where the data is: as the container says, else as the last profile says."""
    if deployment is not None:
        return deployment.server_dir.mount if deployment.server_dir else None
    choice = chosen_data(name)
    if not choice:
        return None
    path = data_path(choice, name=name, home=Path.home(), uid=os.getuid())
    if path is None:
        return Mount(kind="volume", source=choice.removeprefix("volume:"), target="/data")
    return Mount(kind="bind", source=str(path), target=str(path)) if path.exists() or _aside(path).exists() else None


def chosen_data(name: str) -> str:
    """What the last profile said of ``data:``; empty when that is not known."""
    applied = read_applied(name)
    return str(applied.profile.get("data", "")) if applied else ""


def remove(deployment: Deployment, ui: UI) -> list[str]:
    removed = []
    for name in (deployment.name, deployment.name + PREVIOUS, deployment.name + THROW_AWAY):
        container = deployment.engine.inspect(name)
        if container is not None and container.ours:
            with ui.working("server", f"stopping {name}"):
                deployment.engine.stop(name, timeout=STOP)
                deployment.engine.remove(name)
                if container.image_id:
                    remove_former(deployment.engine.images, container.image_id)
            ui.step("server", f"{name} stopped and removed ({deployment.engine.name})")
            removed.append(name)
    return removed


def purge(data: Mount, deployment: Deployment | None, ui: UI) -> bool:
    """Delete the data: a volume through its engine, a directory only when it is devpi's."""
    if data.kind == "volume":
        engine = deployment.engine if deployment else detect("auto").engine
        engine.volume_remove(data.source)
        ui.step("data", f"volume {data.source} deleted")
        return True
    path = Path(data.source)
    shutil.rmtree(_aside(path), ignore_errors=True)  # what a run that was killed has left
    facts = data_facts(path)
    if facts.content is Content.ABSENT:
        return False
    if facts.content not in (Content.DEVPI, Content.EMPTY) or facts.symlink_to is not None:
        raise Refused(
            f"{data.source} holds files that are not devpi's; nothing was deleted", hint="look at it yourself"
        )
    try:
        shutil.rmtree(_set_aside(path))
    except OSError as error:
        raise ConflictError(
            f"{error.filename} can't be deleted: {error.strerror}", hint=f"sudo rm -r {data.source}"
        ) from None
    ui.step("data", f"{data.source} deleted")
    return True


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.purged")


def _set_aside(path: Path) -> Path:
    """Rename it before it is deleted: if we are killed half-way, nobody takes the rest for a server's data."""
    try:
        return path.rename(_aside(path))
    except OSError:  # a mount, or a parent that we may not write to
        return path


def dangling_client(deployment: Deployment | None) -> tuple[str, ...]:
    """A client that still points at what was just removed."""
    url = deployment.url if deployment else ""
    value = pip.read_config(os.environ).value("index-url")
    if url and value.startswith(url + "/"):
        return ("pip still installs from this server: deployer configure-pip --undo",)
    return ()


def left_service(name: str) -> tuple[str, ...]:
    """A unit that would start at boot what is no more."""
    for scope in ("system", "user"):
        service = Service.of(name, scope=scope, home=Path.home(), env=os.environ)
        if service.path.exists():
            return (f"{service.path} still starts it at boot: deployer install-service --scope {scope} --undo",)
    return ()
