"""Translate the messages of a failed engine into our errors, with hints."""

from __future__ import annotations

import re

from deployer.engines.dialects import Dialect
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.protocol import parsed

_LOGGED = re.compile(r'^time=\S+ level=\w+ msg=("(?:[^"\\]|\\.)*")')
"""The log format of nerdctl and podman. The message is quoted by Go, almost as in JSON."""


def meant(text: str, cause: str, *, dialect: Dialect) -> EngineError | ConflictError | None:
    """The error that ``text`` means, with ``cause`` as its message; ``None`` when the dialect does not match."""
    told = f"{dialect.name}: {cause.removeprefix(f'{dialect.name}: ').removeprefix('Error: ')}"
    for said, cure in dialect.misled:
        if said.search(text):
            return EngineUnreachable(told, hint=cure)
    for said, cure in dialect.cures:
        if said.search(text):
            return EngineError(told, hint=cure)
    if dialect.name_taken.search(text):
        return ConflictError(told, hint="choose another name with --name")
    if dialect.port_taken.search(text):
        return ConflictError(told, hint="free the port, or choose another with --port N")
    if dialect.refused.search(text):
        return EngineUnreachable(
            f"{dialect.name}: permission denied: {cause}",
            hint=f"join the group that may use it, run {dialect.name} rootless, or --engine process",
        )
    if dialect.image_missing.search(text):
        return ImageUnavailable(told, hint="deployer image build")
    return None


def silent(cause: str, *, dialect: Dialect, address: str) -> EngineUnreachable:
    """The error of an engine that does not answer. ``address``: where it is, if it is on another host."""
    if address:
        return EngineUnreachable(
            f"{dialect.name}'s engine at {address} does not answer: {cause}",
            hint=f"start it there, or unset {dialect.address} for the engine of this host",
        )
    return EngineUnreachable(
        f"{dialect.name} is installed, but its engine does not answer: {cause}",
        hint=f"{dialect.start}, or --engine process",
    )


def unavailable(failed: str, cause: str, *, dialect: Dialect, lines: tuple[str, ...]) -> ImageUnavailable:
    """The error of a failed build or pull. ``lines``: its last output."""
    text = "\n".join(lines)
    for said, cure in dialect.cures:
        if said.search(text):
            return ImageUnavailable(f"{failed}: {cause}", hint=cure)
    return ImageUnavailable(
        f"{failed}: {cause}",
        hint="see the lines above; without a registry: --base-image REF (a local image), or --engine process",
        details=lines,
    )


def last_line(text: str) -> str:
    """The last line that states a cause. Engines end with advice about --help."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "--help" not in line]
    if not lines:
        return "no reason given"
    logged = _LOGGED.search(lines[-1])
    if logged is None:
        return lines[-1]
    try:
        return " ".join(parsed(logged[1]).split())
    except ValueError:  # Go has escapes that JSON lacks
        return logged[1][1:-1]
