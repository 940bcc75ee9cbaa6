"""``deployer build``: build an image whose steps install from the index."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Common, OtherIndex, Transparent
from deployer.ui.output import UI, Result

CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    words: Annotated[
        list[str], Argument(metavar="ARGUMENTS...", help="Arguments of the engine's own build, like `-t app .`.")
    ] = None  # type: ignore[assignment]
    builder: Annotated[
        str,
        Option("--builder", metavar="NAME", help="auto (the deployment's engine), docker, podman, buildah, nerdctl."),
    ] = "auto"
    index: OtherIndex = ""
    transparent: Transparent = None
    compose: Annotated[
        bool, Option("--compose", help="Build the services of a compose file; arguments as of `docker compose build`.")
    ] = False
    flags: Annotated[
        bool, Option("--flags", help="Only print options for a build file that declares the variables with ARG.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Build an image whose steps install from the index.

    Options of this command come first, then those of the builder. pip and uv find the index in files that exist while a
    step runs; the image, its history and the build cache hold nothing of it. With `--transparent` every client keeps
    the upstream's addresses, and a proxy that lives as long as the build answers for them. The exit code is the
    builder's.
    """
    from deployer.builds.builders import BUILDERS
    from deployer.errors import UsageError
    from deployer.operations import build
    from deployer.operations.client_files import settings_for

    if options.builder not in ("auto", *BUILDERS):
        raise UsageError(f"--builder is one of auto, {', '.join(BUILDERS)}")
    if options.compose and options.flags:
        raise UsageError("--flags are for a build file, not for a compose file", hint="deployer build --compose")
    if not options.words and not options.flags and not options.compose:
        raise UsageError("there are no arguments for the builder", hint="deployer build -t NAME .")
    settings = settings_for(options.name, index=options.index)
    chosen = build.choose(options.builder, name=options.name)
    if options.flags:
        if options.transparent:
            raise UsageError(
                "--flags can't be transparent: the proxy lives as long as deployer build",
                hint="deployer build --transparent -t NAME .",
            )
        words = build.flags(settings, options.words or (), chosen, name=options.name)
        return Result(data={"builder": chosen.builder.name, "flags": list(words)}, text=shlex.join(words))
    source = build.source(settings, chosen, name=options.name, index=options.index, transparent=options.transparent)
    run = build.run
    if options.compose:
        from deployer.operations.build_compose import run
    if code := run(options.words or (), source, chosen, ui):
        raise SystemExit(code)  # the builder has said why
    return Result(data={"builder": chosen.builder.name})
