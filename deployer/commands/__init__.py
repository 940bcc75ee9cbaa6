"""One file per verb. Each has ``Options``, a frozen dataclass whose fields are the command line, and
``run(options, ui) -> Result``, whose docstring is the help.

These files are imported by ``deployer --help``; what is heavy is imported inside ``run``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option

from deployer.operations.recorded import DEFAULT_NAME, DEFAULT_PROFILE, OVERRIDE_KEYS
from deployer.spec import EngineName

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from deployer.deployment.session import Session
    from deployer.profile.load.overrides import Override


def _name(value: str) -> str:
    """A name for a container, a process and a folder alike; the folder ``clients`` is taken."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}", value) or value == "clients":
        raise BadParameter(f"{value[:80]!r} is no name for a deployment: 1 to 63 letters, digits, _ and -")
    return value


def user_name(value: str) -> str:
    """For what goes into the name of a file."""
    from deployer.devpi import names

    if len(value) > 64:
        raise BadParameter(f"{value[:80]!r} is too long for a user's name: 64 characters at most")
    return _named(names.user_name, value)


def index_name(value: str) -> str:
    """For what goes into an address that is not asked before it is handed on; empty where none is named."""
    from deployer.devpi import names

    return value and _named(names.index_name, value)


def _named(check: Callable[[str], str], value: str) -> str:
    from deployer.errors import DeployerError

    try:
        return check(value)
    except DeployerError as error:
        raise BadParameter(f"{error.message}: {error.hint}") from None


def address(value: str) -> str:
    """The address of a server; empty where none is named."""
    from deployer.addresses import split
    from deployer.secrets import mask_url

    parts = split(value)
    if value and (parts is None or parts.query or parts.fragment or not value.isprintable() or " " in value):
        raise BadParameter(f"{mask_url(value)[:80]!r} is no address: http:// or https://, and a host")
    return value


def _engine(value: str) -> str:
    """The name of an engine; empty for whichever the deployment is on."""
    if value not in ("", "auto", *EngineName):
        raise BadParameter(f"{value[:80]!r} is none of auto, {', '.join(EngineName)}")
    return "" if value == "auto" else value


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    profile: Annotated[
        str, Option("--profile", "-p", metavar="NAME|PATH", help="Shipped or own profile, or a file.")
    ] = DEFAULT_PROFILE
    name: Annotated[
        str, Option("--name", metavar="NAME", callback=_name, help="Which deployment, when there are several.")
    ] = DEFAULT_NAME
    json: Annotated[bool, Option("--json", help="One JSON envelope on stdout and nothing else.")] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="No steps, only the result.")] = False
    debug: Annotated[bool, Option("--debug", help="Show the traceback of a failure.")] = False


@dataclass(frozen=True, kw_only=True)
class Located(Common):
    """What a command takes that acts on a deployment that exists already."""

    engine: Annotated[
        str,
        Option(
            "--engine",
            metavar="ENGINE",
            callback=_engine,
            help=f"Look on this engine only: {', '.join(EngineName)}.",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Exclusive:
    """What a command takes that changes a deployment, and therefore holds its lock."""

    wait: Annotated[
        float,
        Option("--wait", metavar="SECONDS", min=0, help="Wait for another run instead of giving up at once."),
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class Talking(Located):
    """What a command takes that talks with a server: with the deployment's, or with any devpi."""

    url: Annotated[
        str, Option("--url", metavar="URL", callback=address, help="Any devpi instead; its password is asked for.")
    ] = ""
    as_user: Annotated[
        str, Option("--as", envvar="DEPLOYER_AS", metavar="USER", help="Whose stored password is used.")
    ] = "root"


@dataclass(frozen=True, kw_only=True)
class Writing(Exclusive, Talking):
    """What a command takes that changes users or indexes."""


@dataclass(frozen=True, kw_only=True)
class Removing(Writing):
    """What a command takes that deletes."""

    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


@dataclass(frozen=True, kw_only=True)
class Overrides(Common):
    """What overrides the profile; empty means: as the profile says."""

    engine: Annotated[str, Option("--engine", metavar="ENGINE", help=f"auto, {', '.join(EngineName)}.")] = ""
    network: Annotated[str, Option("--network", metavar="MODE", help="auto, bridge or host.")] = ""
    bind: Annotated[str, Option("--bind", metavar="ADDRESS", help="Address to listen on or publish at.")] = ""
    port: Annotated[int | None, Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")] = (
        None
    )
    data: Annotated[
        str, Option("--data", metavar="WHERE", help="cache, lib, opt, home, temp, a path, or volume:NAME.")
    ] = ""
    image: Annotated[str, Option("--image", metavar="REF", help="Run this devpi image instead of our own.")] = ""
    base_image: Annotated[str, Option("--base-image", metavar="REF", help="What our own image is built on.")] = ""
    upstream: Annotated[str, Option("--upstream", metavar="URL", help="What root/pypi mirrors.")] = ""
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="The index that clients are pointed at.")] = ""
    timeout: Annotated[
        int | None, Option("--timeout", metavar="SECONDS", min=1, help="How long to wait until it is ready.")
    ] = None
    expose: Annotated[
        bool,
        Option("--expose", help="Insist on an address that others can reach; reading needs no password."),
    ] = False
    set: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override any key; may be repeated.")
    ] = None


def connect(options: Talking) -> AbstractContextManager[Session]:
    """Open the session that the options ask for."""
    from deployer.deployment import session

    return session.connect(options.name, engine=options.engine, url=options.url, user=options.as_user)


def client_index(options: Talking, index: str) -> str:
    """Return ``index``, or when that is empty the one that this deployment's clients use. Raises UsageError."""
    from deployer.errors import UsageError
    from deployer.operations import recorded

    if index:
        return index
    if options.url:
        raise UsageError("which index?", hint="name it: --index USER/NAME")
    return recorded.client_index(options.name)


def overrides(options: Overrides) -> tuple[Override, ...]:
    """What the options and their variables put over the profile; the named options win over ``--set``."""
    from deployer.profile.load.overrides import Override, parse_set

    given = [parse_set(text) for text in options.set or ()]
    for field, key in OVERRIDE_KEYS.items():
        value = getattr(options, field)
        if value is not None and value is not False and value != "":  # 0 is a port, though it equals False
            given.append(Override(key, value, f"--{field.replace('_', '-')}"))
    if options.upstream:
        given.append(Override("indexes.root/pypi.type", "mirror", "--upstream"))
    return tuple(given)
