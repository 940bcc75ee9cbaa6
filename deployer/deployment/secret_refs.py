"""References to secrets in a profile, resolved when needed, on this host, by this user."""

from __future__ import annotations

import os
import re
import shlex
import sys
from base64 import b64encode
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from deployer import DISTRIBUTION
from deployer.errors import EngineUnreachable, ProfileError, UsageError
from deployer.host.runner import Runner
from deployer.profile.models import Credentials, Index
from deployer.secrets import Secret

PATIENCE = 60.0
"""Seconds that a ``command:`` may take: it may ask another service."""
LIMIT = 1 << 16
_HEADER = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)*")


def authorizations(indexes: Mapping[str, Index], *, env: Mapping[str, str], home: Path) -> dict[str, Secret]:
    """The Authorization header of each mirror that has credentials, by its url. Raises ProfileError."""
    return {
        str(index.url): authorization(index.credentials, where=f"indexes.{name}.credentials", env=env, home=home)
        for name, index in indexes.items()
        if index.credentials is not None
    }


def authorization(credentials: Credentials, *, where: str, env: Mapping[str, str], home: Path) -> Secret:
    """The value of the Authorization header: Basic for user and password, Bearer or (as a user) Basic for a token.

    Raises ProfileError, which names ``where`` and the reference, never the secret.
    """
    reference = credentials.password or credentials.token or ""
    secret = resolve(reference, where=where, env=env, home=home)
    if credentials.token is not None and credentials.token_as == "bearer":  # noqa: S105 - a form, not a password
        header = f"Bearer {secret.reveal()}"
        if not _HEADER.fullmatch(header):
            raise ProfileError(
                f"{where}: {reference} is not a valid token",
                hint="give a token of ASCII characters without line breaks",
            )
        return Secret(header)
    pair = f"{credentials.username}:{secret.reveal()}" if credentials.password else f"{secret.reveal()}:"
    return Secret(f"Basic {Secret(b64encode(pair.encode()).decode()).reveal()}")


def referenced(reference: str, *, where: str) -> Secret:
    """The secret of a reference that is an argument of a command. Raises UsageError, ProfileError."""
    if not re.fullmatch(r"(env|file|command|keyring):.+", reference):
        # It may be the secret itself, so it is not shown.
        known = "env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER"
        raise UsageError(f"{where} is not a reference to a secret", hint=f"give {known}")
    return resolve(reference, where=where, env=os.environ, home=Path.home())


def resolve(reference: str, *, where: str, env: Mapping[str, str], home: Path) -> Secret:
    """The secret that ``env:NAME``, ``file:PATH``, ``command:WORDS`` or ``keyring:SERVICE/USER`` stands for: its first
    line. Raises ProfileError.
    """
    kind, _, rest = reference.partition(":")
    found = {"env": _variable, "file": _file, "command": _command, "keyring": _keyring}[kind](rest, where, env, home)
    line = found.split("\n", 1)[0].strip()
    if not line or not line.isprintable():
        raise ProfileError(f"{where}: {reference} is empty", hint="put the secret into its first line")
    return Secret(line)


def _variable(name: str, where: str, env: Mapping[str, str], home: Path) -> str:
    if name not in env:
        raise ProfileError(f"{where}: the variable {name} is not set", hint=f"export {name}=...")
    return env[name]


def _file(path: str, where: str, env: Mapping[str, str], home: Path) -> str:
    file = home / path[2:] if path.startswith("~/") else Path(path)
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.read(LIMIT)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ProfileError(
            f"{where}: {file} can't be read: {why}", hint="name a file that this user may read"
        ) from None


def _command(words: str, where: str, env: Mapping[str, str], home: Path) -> str:
    try:
        argv = shlex.split(words)
    except ValueError as error:
        raise ProfileError(
            f"{where}: command: {error}", hint="quote its words as for a shell; no shell runs it"
        ) from None
    try:
        done = Runner().run(argv, timeout=PATIENCE, env=env)
    except EngineUnreachable as error:
        raise ProfileError(f"{where}: {error.message}", hint=f"run it by hand: {words}") from None
    if done.returncode:
        # Its output is not shown: a failing program may print the secret.
        raise ProfileError(
            f"{where}: {argv[0]} ended with exit code {done.returncode}", hint=f"run it by hand: {words}"
        )
    return done.stdout[:LIMIT]


def _keyring(entry: str, where: str, env: Mapping[str, str], home: Path) -> str:
    service, _, user = entry.rpartition("/")
    try:
        keyring = import_module("keyring")
    except ImportError:
        hint = f"{sys.executable} -m pip install '{DISTRIBUTION}[keyring]'"
        raise ProfileError(f"{where}: keyring is not installed", hint=hint) from None
    try:
        found = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise ProfileError(
            f"{where}: the keyring can't be used: {type(error).__name__}", hint="unlock the keyring"
        ) from None
    if found is None:
        raise ProfileError(f"{where}: the keyring has no {entry}", hint=f"keyring set {service} {user}")
    return str(found)
