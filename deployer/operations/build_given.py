"""What the steps of a container build are given, so that they install from the index."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from deployer.addresses import is_loopback
from deployer.builds import dockerfile
from deployer.builds.arguments import Arguments
from deployer.builds.builders import Builder
from deployer.builds.dockerfile import Secret
from deployer.builds.given import Given
from deployer.clients.client import ClientSettings
from deployer.clients.netrc import Login, Netrc
from deployer.clients.registry import CLIENT_FILES
from deployer.clients.variables import variables
from deployer.errors import Refused
from deployer.host.runner import Runner
from deployer.operations.build_network import Chosen, Way, way_to_loopback
from deployer.spec import EngineName
from deployer.ui.output import UI

if TYPE_CHECKING:
    from deployer.profile.types import ClientName

PIP = Secret(id="deployer-pip", target="/etc/pip.conf")
UV = Secret(id="deployer-uv", target="/etc/uv/uv.toml")
NETRC = Secret(id="deployer-netrc", target="/etc/deployer-netrc")
ROOTS = Secret(id="deployer-roots", target="/etc/deployer-roots.pem")
"""In a directory of every image: a builder may leave the directories that it makes for a file."""
_OWN_INDEX = re.compile(r"\b(PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|UV_DEFAULT_INDEX|UV_INDEX_URL|--(?:extra-)?index-url)\b")
_USES_UV = re.compile(r"\buvx?\b")
_PROXIES = frozenset({"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"})
_OWN_PROXY = re.compile(rf"\b({'|'.join(_PROXIES)}|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|PIP_PROXY|PIP_CERT)\b")
_ANY_PROXY = _PROXIES | {"ALL_PROXY", "all_proxy"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """``given``: what steps get. ``builder``: by which they get it; ``options``: more options of it."""

    given: Given
    builder: Builder
    options: tuple[str, ...]


class Source(Protocol):
    """A way to the index."""

    def step(self, texts: Sequence[str], typed: Arguments, ui: UI) -> contextlib.AbstractContextManager[Step]:
        """What the steps of build files with these texts get, for as long as the block runs.

        Raises Refused, UsageError, ConflictError, EngineError, before any effect.
        """


@dataclass(frozen=True, kw_only=True)
class ByAddress:
    """Clients get the index's own address."""

    settings: ClientSettings
    chosen: Chosen
    login: Login | None = None

    @contextlib.contextmanager
    def step(self, texts: Sequence[str], typed: Arguments, ui: UI) -> Iterator[Step]:
        builder = self.chosen.builder
        for found in filter(None, map(_OWN_INDEX.search, texts)):
            ui.warn(f"the build file names an index of its own ({found[1]}), which wins over this one")
        parts = urlsplit(self.settings.index_url)
        if not builder.secrets:
            if parts.username or self.login is not None:
                raise Refused(
                    "docker's classic builder would keep the index's credentials in the image's history",
                    hint="install docker's buildx",
                )
            ui.warn(
                "docker's classic builder keeps the index address in the image's history; install buildx to leave none"
            )
        way = way_to_loopback(typed.network, self.chosen) if is_loopback(self.settings.index_url) else Way()
        port = parts.port or 80
        with way.to(parts.hostname or "", port) as reached:
            own = self.settings
            if reached != (parts.hostname, port):
                address = urlunsplit(parts._replace(netloc=f"{reached[0]}:{reached[1]}"))
                own = ClientSettings(index_url=address, timeout=own.timeout)
            yield Step(given=_addressed(own, builder, texts, self.login), builder=builder, options=way.options)


def _addressed(settings: ClientSettings, builder: Builder, texts: Sequence[str], login: Login | None) -> Given:
    if not builder.secrets:
        return Given(settings=variables(settings))
    wanted: dict[Secret, ClientName] = {PIP: "pip", **({UV: "uv"} if any(map(_USES_UV.search, texts)) else {})}
    files = {}
    for secret, name in wanted.items():
        client = CLIENT_FILES[name]
        files[secret] = client.merge(b"", client.values(settings, Path(secret.target)))
    if login is None:
        return Given(files=files)
    client = Netrc(login)
    files[NETRC] = client.merge(b"", client.values(settings, Path(NETRC.target)))
    return Given(files=files, settings={"NETRC": NETRC.target})


@dataclass(frozen=True, kw_only=True)
class ByTunnel:
    """Clients keep the upstream's addresses, and a tunnel that lives as long as the build answers for them."""

    name: str
    index: str
    chosen: Chosen

    @contextlib.contextmanager
    def step(self, texts: Sequence[str], typed: Arguments, ui: UI) -> Iterator[Step]:
        from deployer.operations.transparent import start_for_build

        self._refuse(typed)
        builder = self.chosen.builder
        for found in filter(None, map(_OWN_PROXY.search, texts)):
            ui.warn(f"the build file sets {found[1]} itself, so its steps may go past the index")
        if not builder.secrets:
            ui.warn(
                "docker's classic builder has no way to give steps a certificate: pip and uv do not verify the index's"
                " tunnel, and other clients fail; install buildx"
            )
        way = way_to_loopback(typed.network, self.chosen)
        if builder.secrets and builder.engine is not EngineName.PODMAN:
            parsers = dict.fromkeys(map(dockerfile.directives, texts))
            builder = replace(builder, variables=all(_takes_variables(builder, parser) for parser in parsers))
        tunnel = start_for_build(self.name, os.environ, owner=os.getpid(), index=self.index, isolated=bool(way.gateway))
        for line in tunnel.left_out:
            ui.warn(line)
        with way.to("127.0.0.1", tunnel.port) as (host, port):
            proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), tunnel.proxy(host, port))
            proxies |= dict.fromkeys(("NO_PROXY", "no_proxy"), tunnel.no_proxy)
            if builder.secrets:
                files = {ROOTS: tunnel.roots.encode()}
                trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), ROOTS.target)
            else:
                files = {}
                trust = dict.fromkeys(("PIP_TRUSTED_HOST", "UV_INSECURE_HOST"), " ".join(tunnel.hosts))
            yield Step(given=Given(files=files, settings=trust, proxies=proxies), builder=builder, options=way.options)

    def _refuse(self, typed: Arguments) -> None:
        """Raises Refused for what would lead past the tunnel."""
        if given := typed.given & _ANY_PROXY:
            name = min(given)
            raise Refused(
                f"--build-arg {name} would lead past the index",
                hint=f"leave it out, and export {name}: it is used behind the tunnel",
            )
        if "--http-proxy=false" in typed.words:
            raise Refused("--http-proxy=false would lead past the index", hint="leave it out")


def _takes_variables(builder: Builder, parser: str) -> bool:
    """Whether BuildKit gives steps a secret as a variable. ``parser``: the directives of a build file, which may name
    another parser than BuildKit's own.

    Versions do not tell: some builds have none. An unknown option is an error of the parser, and nothing else is.
    """
    secret = Secret(id="any", variable="ANY")
    asked = f"{parser}FROM scratch AS asked\nRUN {secret.flag} any\nFROM scratch\n"
    with TemporaryDirectory(prefix="deployer-build-") as name:
        context = Path(name) / "context"
        context.mkdir()
        file = Path(name) / "Dockerfile"
        file.write_text(asked, encoding="utf-8")
        argv = (*builder.argv, f"--file={file}", f"--output=type=local,dest={name}/out", str(context))
        return Runner(env=builder.env).run(argv, timeout=120.0).returncode == 0
