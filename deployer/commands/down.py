"""``deployer down``: stop and remove the server; the data stays unless ``--purge`` says otherwise."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.spec import Mount


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    purge: Annotated[bool, Option("--purge", help="Delete the data too: every cached and every uploaded file.")] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


def run(options: Options, ui: UI) -> Result:
    """Stop and remove the server; keep its data unless told."""
    from deployer.deployment.find import find
    from deployer.deployment.lock import hold
    from deployer.deployment.passwords import forget_passwords
    from deployer.deployment.record import forget
    from deployer.operations import upstream_probe

    with hold(options.name, wait=options.wait):
        deployment = find(options.name, engine=options.engine)
        data = _data(options.name, deployment)
        throw_away = _chosen_data(options.name) == "temp"
        doomed = data if options.purge or throw_away else None
        if doomed is not None and not throw_away:
            _consent(doomed, yes=options.yes)
        removed = _remove(deployment, ui) if deployment else []
        purged = purge(doomed, deployment, ui) if doomed is not None else False
        kept = data.source if data is not None and not purged else ""
        if kept and removed:
            ui.step("data", f"{kept} (kept; delete it with --purge)")
        if options.purge:
            forget(options.name)
            upstream_probe.forget(options.name)
            forget_passwords(options.name)
    if not removed and not purged:
        ui.step("server", f"{options.name}: nothing to do")
    return Result(
        data={"removed": removed, "data_kept": kept, "purged": purged},
        warnings=(*_dangling(deployment), *_service(options.name)) if removed else (),
    )


def _data(name: str, deployment: Deployment | None) -> Mount | None:
    """Where the data is: as the container says, else as the last profile says."""
    from deployer.plan.data import data_path
    from deployer.spec import Mount

    if deployment is not None:
        return deployment.server_dir.mount if deployment.server_dir else None
    choice = _chosen_data(name)
    if not choice:
        return None
    path = data_path(choice, name=name, home=Path.home(), uid=os.getuid())
    if path is None:
        return Mount(kind="volume", source=choice.removeprefix("volume:"), target="/data")
    return Mount(kind="bind", source=str(path), target=str(path)) if path.exists() or _aside(path).exists() else None


def _chosen_data(name: str) -> str:
    """What the last profile said of ``data:``; empty when that is not known."""
    from deployer.deployment.record import read_applied

    applied = read_applied(name)
    return str(applied.profile.get("data", "")) if applied else ""


def _consent(data: Mount, *, yes: bool) -> None:
    from deployer.errors import Refused

    if yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise Refused(f"--purge would delete {data.source} and everything uploaded to it", hint="insist with --yes")
    sys.stderr.write(f"Delete {data.source} and everything uploaded to it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was deleted", hint="answer y, or give --yes")


def _remove(deployment: Deployment, ui: UI) -> list[str]:
    from deployer.operations.apply import remove_former
    from deployer.spec import PREVIOUS, THROW_AWAY

    removed = []
    for name in (deployment.name, deployment.name + PREVIOUS, deployment.name + THROW_AWAY):
        container = deployment.engine.inspect(name)
        if container is not None and container.ours:
            with ui.working("server", f"stopping {name}"):
                deployment.engine.stop(name, timeout=timedelta(seconds=30))
                deployment.engine.remove(name)
                if container.image_id:
                    remove_former(deployment.engine, container.image_id)
            ui.step("server", f"{name} stopped and removed ({deployment.engine.name})")
            removed.append(name)
    return removed


def purge(data: Mount, deployment: Deployment | None, ui: UI) -> bool:
    """Delete the data: a volume through its engine, a directory only when it is devpi's."""
    import shutil

    from deployer.engines import detect
    from deployer.errors import ConflictError, Refused
    from deployer.host.gather import data_facts
    from deployer.plan.facts import Content

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


def _dangling(deployment: Deployment | None) -> tuple[str, ...]:
    """A client that still points at what was just removed."""
    from deployer.clients import pip

    url = deployment.url if deployment else ""
    value = pip.read_config(os.environ).value("index-url")
    if url and value.startswith(url + "/"):
        return ("pip still installs from this server: deployer configure-pip --undo",)
    return ()


def _service(name: str) -> tuple[str, ...]:
    """A unit that would start at boot what is no more."""
    from deployer.deployment.service import Service

    for scope in ("system", "user"):
        service = Service.of(name, scope=scope, home=Path.home(), env=os.environ)
        if service.path.exists():
            return (f"{service.path} still starts it at boot: deployer install-service --scope {scope} --undo",)
    return ()
