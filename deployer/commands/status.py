"""``deployer status``: the state of the server, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    check: Annotated[bool, Option("--check", help="Compare with the profile, too; exit code 10 means drift.")] = False


def run(options: Options, ui: UI) -> Result:
    """Show the state of the server and whether it is ready. Exit code 0 means ready."""
    from deployer.operations.status import compared, status

    found = status(options.name, engine=options.engine)
    for text in found.warnings:
        ui.warn(text)
    if options.check:
        found = compared(found, options.profile)
    absent = found.deployment is None
    return Result(data=found.data, text=f"{options.name}: absent" if absent else _text(found.data), error=found.error)


def _front(front: str | None) -> str:
    """Return which server answers clients; anything but nginx refers to doctor."""
    return f"{front} (see deployer doctor)" if front and not front.startswith("nginx") else front or ""


def _tls(tls: dict[str, Any] | None) -> str:
    if tls is None:
        return ""
    days = "" if tls["days"] is None else f" (certificate: {tls['days']} days left)"
    return f"{tls['url']}{days if tls['answers'] else ' does not answer (see deployer doctor)'}"


def _text(data: dict[str, Any]) -> str:
    from deployer.diagnosis import size
    from deployer.operations.status import comparison
    from deployer.spec import EngineName, features

    used = f"  {size(data['data_bytes'])}" if data["data_bytes"] is not None else ""
    rows = {
        "state": f"{data['state']}{'' if data['ready'] else ', not ready'} (profile {data['profile']})",
        "engine": f"{data['engine']}, network {data['network']}" if data["network"] else data["engine"],
        "url": data["url"],
        "index": data["simple_url"],
        "tls": _tls(data["tls"]),
        "server": f"devpi-server {data['server_version']}" if data["server_version"] else "",
        "offline": "yes: upstreams are not asked (go online: deployer offline off)" if data["offline"] else "",
        "front": _front(data["front"]),
        "image": data["image"] if features(EngineName(data["engine"])).images else "",
        "data": f"{data['data_dir']}{used}" if data["data_dir"] else "",
        "started": data["started_at"] or "",
        "indexes": ", ".join(data["indexes"]),
        "compared": comparison(data) if data["drift"] == [] else "",
    }
    return "\n".join(f"{key.ljust(10)}{value}" for key, value in rows.items() if value)
