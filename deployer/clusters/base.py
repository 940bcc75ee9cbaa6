"""What a place for several members does, in one Protocol. One contract test runs on every implementation.

Members are servers of our own image with a directory each. One of them is the primary, which is written to; the others
are replicas, which follow it and can be made anew at any time. Which one is the primary is kept at the place itself,
so that every host that reaches the place knows it.

Every method raises :class:`deployer.errors.EngineError` or a subclass when the place fails. Every call has a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from deployer.plan.container import OWN_DATA
from deployer.protocol import IMAGE_PYTHON
from deployer.spec import ExecResult, State

if TYPE_CHECKING:
    from deployer.profile.models import Profile
    from deployer.secrets import Secret


def in_image(words: Sequence[str]) -> tuple[str, ...]:
    """The command of a verb of our server in a container of our own image, with the directory of its data."""
    return (*IMAGE_PYTHON, "-m", "deployer.server", *words, "--serverdir", OWN_DATA)


class PlaceName(StrEnum):
    """Where the members of a cluster run."""

    HOST = "host"
    """On this host, by the engine of the profile, behind a balancer."""
    SWARM = "swarm"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the place remembers of the cluster: the ``primary``'s number, and the ``uuid`` of its server.

    ``uuid`` is empty until the primary has answered for the first time. From then on a primary on an empty or another
    directory is refused: its index would be another one, and the replicas' would be lost.
    """

    primary: int = 0
    uuid: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What ``up`` asks for. ``image``: the reference of our image at the place; empty where it needs none.

    ``upstream``: the address of the default upstream, empty for the server's own default. ``build``: the digest of what
    our image is built from, since a rebuilt one has the same name; empty for one of a registry.
    """

    name: str
    profile: Profile
    profile_name: str
    image: str
    identity: Identity
    upstream: str = ""
    build: str = ""

    @property
    def size(self) -> int:
        """How many members there are."""
        return self.profile.cluster.replicas + 1


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member as its place reports it. ``where``: its container, task or pod, and its node if there are several."""

    number: int
    name: str
    state: State
    where: str
    image: str = ""
    why: str = ""
    """Why it does not run, in the place's words; empty if it does."""


@dataclass(frozen=True, kw_only=True)
class Https:
    """HTTPS that a place answers by itself. ``url``: on this host. ``public``: as clients on other hosts get it."""

    url: str
    public: str


class Cluster(Protocol):
    """The members of one deployment at one place."""

    @property
    def place(self) -> PlaceName: ...

    def probe(self) -> str:
        """Check that the place answers; what it is and its version, in a few words. Raises EngineUnreachable."""

    def identity(self) -> Identity | None:
        """What the place remembers; None when it has no such cluster."""

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """What :meth:`apply` would change, a line each; empty when nothing. Changes nothing."""

    def apply(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        """Bring the place to what is wanted; whether anything was changed. It does not wait for members.

        The first time it makes the secrets: the one that all members share, and root's password. Later it keeps them.
        A changed image or setting replaces the replicas one by one, each after the former one is in sync, and the
        primary last; a removed member keeps its volume.
        """

    def remember(self, identity: Identity) -> None:
        """Keep the identity at the place. The next :meth:`apply` of what is wanted gives each member its role."""

    def members(self) -> tuple[Member, ...]:
        """All members, by their number."""

    def exec(self, number: int, words: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        """Run a verb of our server in a running member, as its user: ``words`` such as ``("member", "status")``.

        The place knows the interpreter and the member's directory: in our image :func:`in_image`.
        """

    def logs(self, number: int, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        """Yield the log lines of a member, as :meth:`deployer.engines.base.Engine.logs`."""

    def restart(self, number: int) -> None:
        """Stop a member and start it again on its own directory."""

    def renew(self, number: int) -> None:
        """Remove a member with its volume, and start it anew on an empty one: it follows the primary then."""

    def stop(self, number: int, *, timeout: timedelta) -> None:
        """Stop a member, and keep it stopped: the fence of a promotion. Does nothing when it is stopped."""

    def reach(self) -> AbstractContextManager[str]:
        """An address at which this host reaches the primary, such as ``http://127.0.0.1:3141``; where only one for all
        members can be reached, that one: they pass writes on.

        Where the place can, it has proved that a member answers there: it gets root's password.
        """

    def address(self) -> str:
        """The address for clients, as far as the place knows one; empty otherwise."""

    def https(self) -> Https | None:
        """Where the place answers HTTPS by itself; None without, or where something before it does."""

    def password(self) -> Secret:
        """Root's password. Raises ConflictError when it can't be read."""

    def down(self, *, purging: bool, on_line: Callable[[str], None]) -> tuple[str, ...]:
        """Remove everything but the volumes, and with ``purging`` these too; the volumes that are left, by name."""
