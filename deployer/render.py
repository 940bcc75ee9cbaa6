"""Render a spec as a command, a script or a unit file: Jinja2 templates, with one quoting grammar per output.

The run templates give one shell word a line, and a hook quotes every value. :func:`run_argv` splits that text by the
shell's rules and :func:`run_script` prints the same words, so the script runs the command that ``up`` runs.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.protocol import OWN_PYTHON
from deployer.resources import templates_dir
from deployer.spec import ContainerSpec, EngineName, Mount, Port, features

if TYPE_CHECKING:
    from jinja2 import Environment, Template


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory that a script creates first. ``uid`` and ``gid`` apply only when root runs the script."""

    path: Path
    mode: int = 0o700
    uid: int = 0
    gid: int = 0


def systemd_word(text: str) -> str:
    """Quote one word of a command line in a unit file: quotes and C escapes (systemd.syntax(7)).

    Variables and specifiers are escaped (systemd.service(5), COMMAND LINES; systemd.unit(5), SPECIFIERS).
    """
    if re.fullmatch(r"[A-Za-z0-9_@+:,./=*-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + "".join(c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in escaped) + '"'


GRAMMARS = {"sh": shlex.quote, "systemd": systemd_word}
"""The function that quotes one value, by output grammar."""


@cache
def environment(grammar: str) -> Environment:
    """The Jinja2 environment of one output grammar. It quotes every value; an undefined name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined, pass_context
    from jinja2.runtime import Context

    quote = GRAMMARS[grammar]

    @pass_context
    def finalize(_context: Context, value: Any) -> str:
        # pass_context keeps Jinja2 from quoting the template's own text at compile time. str() of an undefined value
        # raises.
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
    """The value of ``--mount``, which engines parse as one CSV record."""
    fields = [f"type={mount.kind}", f"source={mount.source}", f"target={mount.target}"]
    if mount.read_only:
        fields.append("readonly" if mount.kind == "bind" else "ro")  # podman knows only "ro" for a volume
    if relabel:
        fields.append(f"relabel={relabel}")
    return csv_record(fields)


def csv_record(fields: Sequence[str]) -> str:
    """One CSV record (RFC 4180), without a line end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(fields)  # csv quotes the characters of its line end
    return out.getvalue().removesuffix("\r\n")


def volume(mount: Mount) -> str:
    """The value of ``--volume``. It can't hold a path with a colon."""
    options = ",".join(word for word, wanted in (("ro", mount.read_only), ("Z", mount.relabel)) if wanted)
    return ":".join(filter(None, (mount.source, mount.target, options)))


def published(port: Port) -> str:
    """The value of ``--publish``, with an IPv6 address in brackets."""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{address}:{port.host_port}:{port.container_port}"


def _seconds(duration: timedelta) -> int:
    return round(duration.total_seconds())


def run_template(engine: EngineName) -> Template:
    """What writes the command of a container. The first time it takes as long as an answer of an engine."""
    return environment("sh").get_template(f"run/{engine}.j2")


def run_argv(spec: ContainerSpec, engine: EngineName, *, once: bool = False) -> tuple[str, ...]:
    """The command that creates and starts ``spec`` on ``engine``. ``once``: in the foreground, removed at its end."""
    return tuple(shlex.split(run_template(engine).render(spec=spec, engine=engine, once=once, python=OWN_PYTHON)))


def run_script(
    spec: ContainerSpec, engine: EngineName, *, directories: Sequence[Directory] = (), header: Sequence[str] = ()
) -> str:
    """A POSIX shell script that runs the command of :func:`run_argv`."""
    lines = ["#!/bin/sh", *(f"# {' '.join(line.split())}" for line in header), "set -eu", ""]
    for directory in directories:
        made = f"install -d -m {directory.mode:04o}"
        path = shlex.quote(str(directory.path))
        owner = f"-o {directory.uid} -g {directory.gid}"
        lines += [f'if [ "$(id -u)" = 0 ]; then {made} {owner} {path}; else {made} {path}; fi']
    words = [shlex.quote(word) for word in run_argv(spec, engine)]
    if not features(engine).containers:
        lines += [f"export {key}={shlex.quote(value)}" for key, value in spec.env]
        words.insert(0, "exec")
    # The command and its verb on the first line, then a word a line.
    head, rest = " ".join(words[:2]), words[2:]
    return "\n".join([*lines, " \\\n  ".join([head, *rest]), ""])


def unit(
    name: str, engine: EngineName, *, scope: str, start: Sequence[str], stop: Sequence[str], start_timeout: timedelta
) -> str:
    """A systemd unit that starts the deployment ``name`` at boot.

    ``start`` and ``stop`` are arguments of env(1); ``scope`` is ``system`` or ``user``.
    """
    template = environment("systemd").get_template("service/unit.j2")
    service = features(engine).service
    return template.render(name=name, service=service, scope=scope, start=start, stop=stop, start_timeout=start_timeout)


def warm_units(name: str, *, warm: Sequence[str]) -> tuple[str, str]:
    """The unit that fetches what the watched files of the deployment ``name`` need, and its timer.

    ``warm``: arguments of env(1).
    """
    made = environment("systemd")
    return (
        made.get_template("service/warm.service.j2").render(name=name, warm=warm),
        made.get_template("service/warm.timer.j2").render(name=name),
    )


def tls_units(name: str, *, renew: Sequence[str]) -> tuple[str, str]:
    """The unit that gives the deployment ``name`` its renewed certificate, and its timer. ``renew``: as ``warm``."""
    made = environment("systemd")
    return (
        made.get_template("service/tls.service.j2").render(name=name, renew=renew),
        made.get_template("service/tls.timer.j2").render(name=name),
    )


_OF_THE_UNIT = ("--detach", "--name=", "--restart=")
"""Options of ``run`` that a unit expresses by its own keys."""
_UNIT_RESTART = {"no": "no", "on-failure": "on-failure"}


def backup_units(name: str, *, create: Sequence[str], schedule: str) -> tuple[str, str]:
    """The systemd service that takes a backup, and its timer. ``create``: arguments of env(1)."""
    made = environment("systemd")
    service = made.get_template("service/backup.j2").render(name=name, create=create)
    return service, made.get_template("service/timer.j2").render(name=name, schedule=schedule.split())


def quadlet(spec: ContainerSpec) -> str:
    """A Quadlet file: systemd runs ``spec`` with podman, the only engine that reads one."""
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
