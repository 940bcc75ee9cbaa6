"""``deployer render``: the plan as a script, one command line, a systemd unit or a Quadlet."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Overrides, overrides
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.render import Directory
    from deployer.spec import ContainerSpec, EngineInfo, EngineName

FORMATS = ("sh", "argv", "systemd", "quadlet")


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    format: Annotated[
        str,
        Option(
            "--format",
            metavar="FORMAT",
            help="sh (script), argv (one line), systemd (unit for a deployment of `up`), quadlet (podman).",
        ),
    ] = "sh"


def run(options: Options, ui: UI) -> Result:
    """Print the deployment as a script or a systemd unit.

    A named engine need not be installed.
    """
    from deployer.errors import UsageError
    from deployer.operations.prepare import gather
    from deployer.plan import plan
    from deployer.plan.container import by_hand
    from deployer.profile.load import load
    from deployer.render import Directory, run_argv

    if options.format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}")
    loaded = load(options.profile, overrides=overrides(options))
    info = _engine(loaded.profile.engine, options.name, server=loaded.profile.server.version)
    facts = gather(loaded.profile, info, None, name=options.name, any_port=True)
    # Nothing is started here, so the recorded data need not be at hand.
    facts = replace(facts, recorded=None)
    made = plan(loaded.profile, facts, name=options.name, profile_name=loaded.name)
    spec = by_hand(made.spec)
    argv = run_argv(spec, info.name)
    data = made.data
    directories = (
        (Directory(path=Path(data.source), mode=0o700, uid=data.uid, gid=data.gid),) if data.kind == "bind" else ()
    )
    header = [f"The deployment {options.name!r} of the profile {loaded.name!r}, for {info.name}."]
    if made.image is not None and made.image.own:
        header.append(f"It needs the image {made.image.ref}: deployer image build --engine {info.name}")
    text = _text(options.format, spec, info.name, directories=directories, header=tuple(header))
    return Result(data={"engine": info.name, "argv": list(argv), "text": text}, text=text, warnings=made.warnings)


def _text(
    form: str, spec: ContainerSpec, engine: EngineName, *, directories: tuple[Directory, ...], header: tuple[str, ...]
) -> str:
    from deployer.errors import UsageError
    from deployer.operations.unit import unit_text
    from deployer.render import quadlet, run_argv, run_script
    from deployer.spec import features

    match form:
        case "argv":
            return shlex.join(run_argv(spec, engine))
        case "systemd":
            return unit_text(spec.name, engine, scope="system" if os.getuid() == 0 else "user")
        case "quadlet" if not features(engine).quadlet:
            raise UsageError(f"{engine} can't run a Quadlet", hint="add --engine podman")
        case "quadlet":
            return quadlet(spec)
        case _:
            return run_script(spec, engine, directories=directories, header=header)


def _engine(wanted: str, name: str, *, server: str) -> EngineInfo:
    """Return a named engine unasked; for ``auto`` that of the last ``up``, else the first that answers.

    ``server``: the major version of devpi-server, which a process of another environment may have.
    """
    from deployer.deployment.record import read_applied
    from deployer.engines import detect
    from deployer.engines.dialects import dialect_of
    from deployer.image import server_version
    from deployer.spec import EngineInfo, EngineName

    if wanted == "auto":
        last = read_applied(name)
        return detect(last.engine if last is not None and last.engine in set(EngineName) else wanted).info
    engine = EngineName(wanted)
    dialect = dialect_of(engine)
    if dialect is None:
        return EngineInfo(name=engine, version=server_version(server))
    rootless = os.getuid() != 0 and engine is EngineName.PODMAN
    return EngineInfo(name=engine, version="", rootless=rootless, injects=dialect.injects(os.environ))
