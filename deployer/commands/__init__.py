"""The verbs, one file each: ``Options``, a frozen dataclass whose fields are the command line, and
``run(options, ui) -> Result``, whose docstring is the help.

Modules that are slow to import are imported inside ``run``, so that ``deployer VERB --help`` stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from deployer.operations.recorded import DEFAULT_NAME, DEFAULT_PROFILE, NAME, OVERRIDE_KEYS
from deployer.spec import EngineName

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from deployer.clients.client import ClientSettings
    from deployer.deployment.session import Session
    from deployer.profile.load.overrides import Override


def _name(value: str) -> str:
    """Check the name of a deployment: it names a container, a process and a directory beside ``clients``."""
    if not re.fullmatch(NAME, value) or value == "clients":
        raise BadParameter(f"{value[:80]!r} is an invalid deployment name: use 1 to 63 letters, digits, _ and -")
    return value


def user_name(value: str) -> str:
    """Check the name of a user, which becomes part of a file name. Raises BadParameter."""
    from deployer.devpi import names

    if len(value) > 64:
        raise BadParameter(f"{value[:80]!r} is too long for a user name: use at most 64 characters")
    return _named(names.user_name, value)


def index_name(value: str) -> str:
    """Check the name of an index, which goes into a URL unchecked; empty is allowed. Raises BadParameter."""
    from deployer.devpi import names

    return value and _named(names.index_name, value)


def _named(check: Callable[[str], str], value: str) -> str:
    from deployer.errors import DeployerError

    try:
        return check(value)
    except DeployerError as error:
        raise BadParameter(f"{error.message}: {error.hint}") from None


def address(value: str) -> str:
    """Check the URL of a server; empty is allowed. Raises BadParameter."""
    from deployer.addresses import split
    from deployer.secrets import mask_url

    parts = split(value)
    if value and (parts is None or parts.query or parts.fragment or not value.isprintable() or " " in value):
        raise BadParameter(f"{mask_url(value)[:80]!r} is an invalid URL: use http:// or https:// and a host")
    return value


def _engine(value: str) -> str:
    """Check the name of an engine; return an empty one for ``auto``: the engine of the deployment."""
    if value not in ("", "auto", *EngineName):
        raise BadParameter(f"{value[:80]!r} is an unknown engine: use auto, {', '.join(EngineName)}")
    return "" if value == "auto" else value


def ca_file(value: str) -> str:
    """Check the file of a CA; return its absolute path, which clients are given. Raises BadParameter."""
    if not value:
        return ""
    path = Path(value).expanduser().absolute()
    try:
        found = b"-----BEGIN CERTIFICATE-----" in path.read_bytes()
    except OSError as error:
        raise BadParameter(f"{value} can't be read: {error.strerror}") from None
    if not found:
        raise BadParameter(f"{value} holds no certificate: use the output of `deployer tls ca`")
    return str(path)


# Options that several commands share, each with its own default.
OtherIndex = Annotated[
    str, Option("--index", metavar="USER/NAME", callback=index_name, help="Another index of the same server.")
]
AskedIndex = Annotated[
    str, Option("--index", metavar="USER/NAME", callback=index_name, help="Index to ask, else the clients' one.")
]
Transparent = Annotated[
    bool | None,
    Option(
        "--transparent/--no-transparent",
        help="Keep the upstream's addresses, as in lock files; default: clients.transparent.",
    ),
]
TrustedCa = Annotated[
    str,
    Option("--ca", metavar="FILE", callback=ca_file, help="CA of the server at --url, from its `deployer tls ca`."),
]
Requirements = Annotated[
    list[Path] | None,
    Option(
        "-r",
        "--requirements",
        metavar="FILE",
        help="Requirements, pyproject.toml, uv.lock, pylock.toml, poetry.lock or pdm.lock; may be repeated.",
    ),
]
Pythons = Annotated[
    list[str] | None,
    Option("--python", metavar="VERSION", help="Python, like 3.11,3.13; default: deployer's own."),
]
Platforms = Annotated[
    list[str] | None,
    Option("--platform", metavar="NAME", help="Platform as uv names it, like linux; default: this host's."),
]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    profile: Annotated[str, Option("--profile", "-p", metavar="NAME|PATH", help="Name or file of the profile.")] = (
        DEFAULT_PROFILE
    )
    name: Annotated[str, Option("--name", metavar="NAME", callback=_name, help="Name of the deployment.")] = (
        DEFAULT_NAME
    )
    json: Annotated[bool, Option("--json", help="Print one JSON envelope only.")] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print the result only, no steps.")] = False
    debug: Annotated[bool, Option("--debug", help="Show the traceback of a failure.")] = False


@dataclass(frozen=True, kw_only=True)
class Located(Common):
    """Options of a command on an existing deployment."""

    engine: Annotated[
        str,
        Option(
            "--engine",
            metavar="ENGINE",
            callback=_engine,
            help=f"Use this engine only: {', '.join(EngineName)}.",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Exclusive:
    """Options of a command that holds the lock of a deployment."""

    wait: Annotated[
        float,
        Option("--wait", metavar="SECONDS", min=0, help="Wait so long for the lock of the deployment."),
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class Talking(Located):
    """Options of a command that connects to a server: the deployment's or any devpi."""

    url: Annotated[
        str, Option("--url", metavar="URL", callback=address, help="Connect to this devpi; prompts for the password.")
    ] = ""
    as_user: Annotated[str, Option("--as", envvar="DEPLOYER_AS", metavar="USER", help="Log in as this user.")] = "root"


@dataclass(frozen=True, kw_only=True)
class Writing(Exclusive, Talking):
    """Options of a command that changes users or indexes."""


@dataclass(frozen=True, kw_only=True)
class Removing(Writing):
    """Options of a command that deletes."""

    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask before deleting.")] = False


@dataclass(frozen=True, kw_only=True)
class Overrides(Common):
    """Options that override the profile; an empty one leaves the profile's value."""

    engine: Annotated[str, Option("--engine", metavar="ENGINE", help=f"auto, {', '.join(EngineName)}.")] = ""
    network: Annotated[str, Option("--network", metavar="MODE", help="auto, bridge or host.")] = ""
    bind: Annotated[str, Option("--bind", metavar="ADDRESS", help="Address to listen on or publish at.")] = ""
    port: Annotated[int | None, Option("--port", metavar="N", min=0, max=65535, help="Port; 0 for a free one.")] = None
    data: Annotated[
        str, Option("--data", metavar="WHERE", help="cache, lib, opt, home, temp, a path, or volume:NAME.")
    ] = ""
    image: Annotated[str, Option("--image", metavar="REF", help="Run this devpi image instead of deployer's own.")] = ""
    base_image: Annotated[str, Option("--base-image", metavar="REF", help="Base of deployer's own image.")] = ""
    upstream: Annotated[str, Option("--upstream", metavar="URL", help="Upstream of root/pypi.")] = ""
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index for the clients.")] = ""
    timeout: Annotated[int | None, Option("--timeout", metavar="SECONDS", min=1, help="Deadline for readiness.")] = None
    expose: Annotated[
        bool,
        Option(
            "--expose",
            help="Allow an address that other hosts can reach; reading an index without `read:` needs no password.",
        ),
    ] = False
    set: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override any key; may be repeated.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ChosenClients(Common):
    """Options of a command about some client files."""

    clients: Annotated[
        list[str] | None, Argument(metavar="[CLIENT]...", help="These clients only; by default all that are installed.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Comparing(Common):
    """Options of a command about an index."""

    index: OtherIndex = ""
    url: Annotated[str, Option("--url", metavar="URL", callback=address, help="Simple URL of another server.")] = ""


@dataclass(frozen=True, kw_only=True)
class Pointing(Comparing, ChosenClients):
    """Options of a command that points clients at an index."""

    ca: TrustedCa = ""
    scope: Annotated[
        str, Option("--scope", metavar="SCOPE", help="user, project, environment (the active venv) or machine.")
    ] = "user"
    timeout: Annotated[int | None, Option("--timeout", metavar="SECONDS", min=1, help="Timeout of pip.")] = None


def connect(options: Talking) -> AbstractContextManager[Session]:
    """Open a session with the server of ``options``."""
    from deployer.operations.cluster.session import connect

    return connect(options.name, engine=options.engine, url=options.url, user=options.as_user)


def client_index(options: Talking, index: str) -> str:
    """Return ``index``, by default the index of the deployment's clients. Raises UsageError."""
    from deployer.errors import UsageError
    from deployer.operations import recorded

    if index:
        return index
    if options.url:
        raise UsageError("--url without an index", hint="add --index USER/NAME")
    return recorded.client_index(options.name)


def overrides(options: Overrides) -> tuple[Override, ...]:
    """Return the overrides of the profile from the options; the named options win over ``--set``."""
    from deployer.profile.load.overrides import Override, parse_set

    given = [parse_set(text) for text in options.set or ()]
    for field, key in OVERRIDE_KEYS.items():
        value = getattr(options, field)
        if value is not None and value is not False and value != "":  # 0 is a port, though it equals False
            given.append(Override(key, value, f"--{field.replace('_', '-')}"))
    if options.upstream:
        given.append(Override("indexes.root/pypi.type", "mirror", "--upstream"))
    return tuple(given)


def client_settings(options: Comparing, timeout: int | None = None, *, ca: str = "") -> ClientSettings:
    """Return the index of ``options`` as clients are given it. Raises ConflictError when there is no deployment."""
    from deployer.operations.client_files import settings_for

    return settings_for(options.name, index=options.index, url=options.url, timeout=timeout, ca=ca)
