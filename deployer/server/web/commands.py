"""The commands that install from this server, as pages show them. Pure."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Snippet:
    """Something to copy. ``key``: unique on its page, and part of an ``id``."""

    key: str
    title: str
    text: str
    note: str = ""


def for_index(base: str, index: str) -> Sequence[Snippet]:
    """How each client is pointed at ``index``. ``base``: the server's address, without a slash at the end."""
    url, source = simple(base, index), _source(index)
    trusted = [f"pip config set global.trusted-host {_host(base)}"] if _needs_trust(base) else []
    docker = [f"ENV PIP_INDEX_URL={url}", *([f"ENV PIP_TRUSTED_HOST={_host(base)}"] if trusted else [])]
    poetry = f"poetry source add --priority=primary {source} {url}"
    return (
        Snippet("pip", "pip", "\n".join([f"pip config set global.index-url {url}", *trusted])),
        Snippet("uv", "uv", f"export UV_DEFAULT_INDEX={url}", note="To keep it, set the same index in uv.toml."),
        Snippet("poetry", "Poetry", poetry, note="In the directory of a project."),
        Snippet("docker", "Dockerfile", "\n".join([*docker, f"ENV UV_DEFAULT_INDEX={url}"]), note=_docker_note(base)),
    )


def for_release(base: str, index: str, project: str, version: str) -> Sequence[Snippet]:
    """How each client installs one release. ``version``: empty for the latest."""
    url, source = simple(base, index), _source(index)
    wanted = shlex.quote(f"{project}=={version}" if version else project)
    trusted = f" --trusted-host {_host(base)}" if _needs_trust(base) else ""
    pip = f"pip install --index-url {url}{trusted} {wanted}"
    poetry = f"poetry source add --priority=primary {source} {url}\npoetry add --source {source} {wanted}"
    return (
        Snippet("pip", "pip", pip),
        Snippet("uv", "uv", f"uv pip install --default-index {url} {wanted}"),
        Snippet("poetry", "Poetry", poetry),
        Snippet("docker", "Dockerfile", f"RUN {pip}", note=_docker_note(base)),
    )


def _source(index: str) -> str:
    """A name for Poetry's source."""
    return shlex.quote(index.replace("/", "-"))


def simple(base: str, index: str) -> str:
    """The address that installers are given."""
    return f"{base}/{index}/+simple/"


def _docker_note(base: str) -> str:
    return "Build with docker build --network=host: this address is of this machine alone." if is_local(base) else ""


def is_local(base: str) -> bool:
    """Whether only programs of the browser's own machine reach the address."""
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _needs_trust(base: str) -> bool:
    """Whether pip refuses the address without ``--trusted-host`` (pip: "Secure origins")."""
    return urlsplit(base).scheme == "http" and not is_local(base)


def _host(base: str) -> str:
    return urlsplit(base).netloc
