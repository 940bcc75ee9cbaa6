"""``deployer render``: the plan as a script, one command line, or a file of another tool."""

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
    from deployer.plan import Plan
    from deployer.profile.load import Loaded
    from deployer.profile.models import Profile
    from deployer.render import Directory
    from deployer.spec import ContainerSpec, EngineInfo, EngineName

OF_SERVER = ("sh", "argv", "systemd", "quadlet", "compose")
OF_CLIENTS = ("dockerfile", "devcontainer", "buildkitd")
OF_MONITORING = {"prometheus": "prometheus.yaml", "alerts": "alerts.yaml", "grafana": "grafana.json"}
OF_CLUSTERS = ("stack", "kubernetes", "kustomize", "helm")
IN_DIRECTORY = ("kustomize", "helm")
FORMATS = (*OF_SERVER, *OF_CLUSTERS, *OF_CLIENTS, *OF_MONITORING)


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    format: Annotated[
        str,
        Option(
            "--format",
            metavar="FORMAT",
            help="The server: sh (script), argv (one line), systemd (unit for a deployment of `up`), quadlet (podman), "
            "compose. A cluster: stack (Docker Swarm), kubernetes, kustomize, helm. What uses its index: dockerfile, "
            "devcontainer, buildkitd. What watches it: prometheus, alerts, grafana.",
        ),
    ] = "sh"
    output: Annotated[
        Path | None,
        Option("--output", metavar="DIRECTORY", help="Of kustomize and helm: where their files are written."),
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Print it as a script or a file of another tool.

    Some formats run the server on another host; others build images and open dev containers that install from its
    index, or have Prometheus and Grafana watch it. A named engine need not be installed.
    """
    from deployer.errors import UsageError
    from deployer.host.plugins import plugin_facts
    from deployer.operations.prepare import gather
    from deployer.plan import plan
    from deployer.plan.container import by_hand
    from deployer.profile.load import load
    from deployer.protocol import PrivateFile
    from deployer.render import Directory, run_argv

    if options.format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}")
    if (options.output is not None) != (options.format in IN_DIRECTORY):
        raise UsageError(
            f"{options.format} is {'several files' if options.output is None else 'one file'}",
            hint="add --output DIRECTORY" if options.output is None else "leave out --output",
        )
    loaded = load(options.profile, overrides=overrides(options))
    if options.format in OF_CLUSTERS:
        return _of_clusters(loaded, options)
    if options.format in OF_MONITORING:
        return _of_monitoring(options.format, loaded.profile.server.metrics)
    if loaded.profile.engine in ("swarm", "kubernetes"):
        raise UsageError(
            f"{options.format} is of a single server, and {loaded.profile.engine} runs a cluster",
            hint="add --engine docker, or choose a format of a cluster",
        )
    info = _engine(loaded.profile.engine, options.name, server=loaded.profile.server.version)
    plugins = plugin_facts(loaded.profile, loaded.files, name=options.name)
    facts = gather(loaded.profile, info, None, name=options.name, plugins=plugins, any_port=True)
    # Nothing is started here, so the recorded data need not be at hand.
    facts = replace(facts, recorded=None)
    made = plan(loaded.profile, facts, name=options.name, profile_name=loaded.name)
    if options.format in OF_CLIENTS:
        text = _of_clients(options.format, made, loaded.profile)
        return Result(
            data={"engine": info.name, "argv": [], "text": text, "files": []}, text=text, warnings=made.warnings
        )
    spec = by_hand(made.spec)
    argv = run_argv(spec, info.name)
    data = made.data
    directories = (
        (Directory(path=Path(data.source), mode=0o700, uid=data.uid, gid=data.gid),) if data.kind == "bind" else ()
    )
    header = [f"The deployment {options.name!r} of the profile {loaded.name!r}, for {info.name}."]
    if made.image is not None and made.image.own:
        header.append(f"It needs the image {made.image.ref}: deployer image build --engine {info.name}")
    if made.tls is not None:
        header.append(
            f"Its certificate and key are to be in {PrivateFile.TLS.relative} of its data, 0600; it waits a minute."
        )
    if made.plugins is not None and made.plugins.contents:
        header.append(f"It reads the files in {made.plugins.files}, which deployer up writes.")
    if made.plugins is not None and made.plugins.environment is not None:
        header.append(f"It needs the plugins in {made.plugins.environment}, which deployer up installs.")
    text = _text(options.format, spec, info.name, directories=directories, header=tuple(header))
    return Result(
        data={"engine": info.name, "argv": list(argv), "text": text, "files": []}, text=text, warnings=made.warnings
    )


def _text(
    form: str, spec: ContainerSpec, engine: EngineName, *, directories: tuple[Directory, ...], header: tuple[str, ...]
) -> str:
    from deployer.container_files import commented, compose
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
        case "compose" if not features(engine).containers:
            raise UsageError(f"{engine} has no containers", hint="add --engine docker, podman or nerdctl")
        case "compose":
            made = [
                f"Before: install -d -m {one.mode:o} -o {one.uid} -g {one.gid} {shlex.quote(str(one.path))}"
                for one in directories
            ]
            return commented((*header, *made, f"It starts with: {engine} compose up --detach"), compose(spec))
        case _:
            return run_script(spec, engine, directories=directories, header=header)


def _of_clusters(loaded: Loaded, options: Options) -> Result:
    """The files of a cluster. Nothing of this host is asked for them."""
    from deployer.operations.rendered import rendered, write

    made = rendered(loaded, options.name, options.format)
    written = [str(path) for path in write(made.files, options.output)] if options.output is not None else []
    data = {"engine": made.engine, "argv": [], "text": made.text, "files": written}
    return Result(data=data, text=made.text.rstrip() or "\n".join(written), warnings=made.warnings)


def _of_monitoring(form: str, address: str) -> Result:
    """A shipped file. ``address``: the profile's address of metrics."""
    from deployer.resources import templates_dir

    text = (templates_dir() / "monitoring" / OF_MONITORING[form]).read_text(encoding="utf-8")
    warnings = () if address else ("the server has no metrics: set server.metrics, like 127.0.0.1:9141",)
    text = text.replace("127.0.0.1:9141", address or "127.0.0.1:9141").rstrip()
    return Result(data={"engine": "", "argv": [], "text": text, "files": []}, text=text, warnings=warnings)


def _of_clients(form: str, made: Plan, profile: Profile) -> str:
    """A file with which images are built, or containers opened, that install from the index of the plan."""
    from urllib.parse import urlsplit

    from deployer import container_files
    from deployer.addresses import is_loopback
    from deployer.clients.client import ClientSettings
    from deployer.clients.variables import variables
    from deployer.errors import Refused, UsageError
    from deployer.image import DEFAULT_BASE

    url = made.simple_url
    if urlsplit(url).username:
        raise Refused("the file would hold the index's credentials", hint="deployer build, which keeps them out")
    settings = ClientSettings(index_url=url, timeout=profile.clients.timeout)
    host, values, base = is_loopback(url), variables(settings), profile.image.base or DEFAULT_BASE
    network = " --network=host" if host else ""
    try:
        match form:
            case "dockerfile":
                header = (f"Steps below install from {url}. Build it with: docker build{network} .",)
                return container_files.commented(header, container_files.dockerfile(base, values))
            case "devcontainer":
                return container_files.devcontainer(made.name, base, values, host=host)
            case _:
                return container_files.commented(_of_buildkit(url, host=host), container_files.buildkitd(host=host))
    except ValueError as error:
        raise UsageError(str(error), hint="choose another index with --index") from None


def _of_buildkit(url: str, *, host: bool) -> tuple[str, ...]:
    if not host:
        return (f"Steps of builds reach {url} in any network: BuildKit needs no setting for it.",)
    create = "docker buildx create --use --driver=docker-container --driver-opt=network=host"
    return (
        f"Steps of builds have the host's network, so that they reach {url}.",
        f"A builder of buildx with it: {create} --buildkitd-config=buildkitd.toml",
        "nerdctl: put it where buildkitd reads it, /etc/buildkit/buildkitd.toml, and restart buildkitd.",
    )


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
