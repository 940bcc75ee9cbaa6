"""From a spec to words: Jinja2 templates, one quoting grammar per output, no value ever seen as syntax.

The template makes one shell word a line; a hook quotes every value in it. :func:`run_argv` splits that text by the
shell's own rules and :func:`run_script` prints the same list, so what is shown is what is run.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.resources import templates_dir
from deployer.spec import ContainerSpec, EngineName, Mount, Port

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory that a script has to make first; ``uid`` and ``gid`` matter only where root runs the script."""

    path: Path
    mode: int = 0o700
    uid: int = 0
    gid: int = 0


def systemd_word(text: str) -> str:
    """One word of a command line in a unit file: quotes and C escapes (systemd.syntax(7)), and nothing that systemd
    would expand (systemd.service(5), COMMAND LINES; systemd.unit(5), SPECIFIERS)."""
    if re.fullmatch(r"[A-Za-z0-9_@+:,./=-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + "".join(c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in escaped) + '"'


GRAMMARS = {"sh": shlex.quote, "systemd": systemd_word}
"""How each kind of output quotes one value (``text -> text``)."""


@cache
def environment(grammar: str) -> Environment:
    """The Jinja2 environment of one output grammar; an undefined name is an error, an unquoted value impossible."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined, pass_context
    from jinja2.runtime import Context

    quote = GRAMMARS[grammar]

    @pass_context
    def finalize(_context: Context, value: Any) -> str:
        # Marked as depending on the context, so that Jinja2 does not run it on the template's own text at compile
        # time. An undefined value has to fail by itself.
        return str(value) if isinstance(value, Undefined) else quote(str(value))

    made = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML: finalize quotes by the output's own grammar
    )
    made.filters.update(csv=mount_csv, volume=volume, published=published, seconds=_seconds)
    return made


def mount_csv(mount: Mount, *, relabel: str = "") -> str:
    """A value of ``--mount``, which engines read as one CSV record."""
    fields = [f"type={mount.kind}", f"source={mount.source}", f"target={mount.target}"]
    if mount.read_only:
        fields.append("readonly" if mount.kind == "bind" else "ro")  # podman has only the one for a volume
    if relabel:
        fields.append(f"relabel={relabel}")
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(fields)  # what ends lines decides what is quoted
    return out.getvalue().removesuffix("\r\n")


def volume(mount: Mount) -> str:
    """A value of ``--volume``: no colon can be in its paths."""
    options = ",".join(word for word, wanted in (("ro", mount.read_only), ("Z", mount.relabel)) if wanted)
    return ":".join(filter(None, (mount.source, mount.target, options)))


def published(port: Port) -> str:
    """A value of ``--publish``; an IPv6 address in brackets."""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{address}:{port.host_port}:{port.container_port}"


def _seconds(duration: timedelta) -> int:
    return round(duration.total_seconds())


def run_argv(spec: ContainerSpec, engine: EngineName, *, once: bool = False) -> tuple[str, ...]:
    """The words that create and start ``spec`` on ``engine``; ``once``: in the foreground, and remove it."""
    if engine is EngineName.PROCESS:
        return (sys.executable, "-m", "deployer.server", *spec.command)
    text = environment("sh").get_template("run/run.j2").render(spec=spec, engine=engine, once=once)
    return tuple(shlex.split(text))


def run_script(
    spec: ContainerSpec, engine: EngineName, *, directories: Sequence[Directory] = (), header: Sequence[str] = ()
) -> str:
    """A POSIX shell script that a person can keep and run; it does what :func:`run_argv` does."""
    lines = ["#!/bin/sh", *(f"# {' '.join(line.split())}" for line in header), "set -eu", ""]
    for directory in directories:
        made = f"install -d -m {directory.mode:04o}"
        path = shlex.quote(str(directory.path))
        owner = f"-o {directory.uid} -g {directory.gid}"
        lines += [f'if [ "$(id -u)" = 0 ]; then {made} {owner} {path}; else {made} {path}; fi']
    if engine is EngineName.PROCESS:
        lines += [f"export {key}={shlex.quote(value)}" for key, value in spec.env]
    words = [shlex.quote(word) for word in run_argv(spec, engine)]
    if engine is EngineName.PROCESS:
        words.insert(0, "exec")
    # The command and its verb on the first line, then a word a line.
    head, rest = " ".join(words[:2]), words[2:]
    return "\n".join([*lines, " \\\n  ".join([head, *rest]), ""])


def unit(
    name: str, engine: EngineName, *, scope: str, start: Sequence[str], stop: Sequence[str], start_timeout: timedelta
) -> str:
    """A systemd unit that has the deployment ``name`` started at boot; ``start`` and ``stop`` are words for env(1),
    ``scope`` is ``system`` or ``user``."""
    return (
        environment("systemd")
        .get_template("service/unit.j2")
        .render(name=name, engine=engine, scope=scope, start=start, stop=stop, start_timeout=start_timeout)
    )


_OF_THE_UNIT = ("--detach", "--name=", "--restart=")
"""Options of ``run`` that a unit has its own words for."""
_UNIT_RESTART = {"no": "no", "on-failure": "on-failure"}


def quadlet(spec: ContainerSpec) -> str:
    """A Quadlet file that has systemd run ``spec`` by podman."""
    argv = run_argv(spec, EngineName.PODMAN)
    options = argv[2 : argv.index("--")]
    return (
        environment("systemd")
        .get_template("service/quadlet.j2")
        .render(
            name=spec.name,
            image=spec.image,
            options=[word for word in options if not word.startswith(_OF_THE_UNIT)],
            command=spec.command,
            restart=_UNIT_RESTART.get(spec.restart.partition(":")[0], "always"),
        )
    )
