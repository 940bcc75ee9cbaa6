"""What a client is to deployer: how it is pointed at an index, and what its files and variables mean.

A :class:`Client` can be pointed at an index for one command, through variables. A :class:`ClientFile` has a file for
it, too. Both only know their client: locking, backups, writing and undoing are shared (``configure.py``).
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from deployer.host.state_dir import state_root

Values = Mapping[str, str]
"""Settings as a client's file has them, by their keys there."""


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """Settings of every client: the index address (with ``/+simple/``), and the timeout of a request, in seconds.

    ``ca``: the path of the CA that it has to trust for the index; empty where the system's CAs do.
    """

    index_url: str = field(repr=False)
    timeout: int
    ca: str = ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user whose clients are meant: environment variables and home directory.

    ``state``: the private directory for locks and backups of client files. ``directory``: the current one, where
    clients look for a project.
    """

    env: Mapping[str, str]
    home: Path
    state: Path
    platform: str = sys.platform
    directory: Path = field(default_factory=lambda: _directory())

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """The account that runs under ``env``."""
        return cls(env=env, home=_home(env), state=state_root() / "clients")


def _directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path("/")


def _home(env: Mapping[str, str]) -> Path:
    """The home directory as ``os.path.expanduser`` finds it."""
    if "HOME" in env:
        return Path(env["HOME"] or "/")
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


class Effective(NamedTuple):
    """The value that a client uses, and the file or variable that it is from; both are empty where nothing is set."""

    value: str = ""
    source: str = ""


class Unmerged(NamedTuple):
    """A file without deployer's values, empty when nothing is left; ``kept``: keys that somebody else has set since."""

    content: bytes
    kept: tuple[str, ...] = ()


class ClientConfig(Protocol):
    """All that a client reads on this host: files and variables, with the client's own precedence."""

    def effective(self, key: str) -> Effective:
        """The value of ``key`` that an installation uses."""

    def masks(self, key: str, path: Path) -> tuple[str, ...]:
        """What overrides ``key`` of the file ``path``, one sentence each; a source of the same value does not."""

    def ignores(self, path: Path) -> str:
        """Why the client does not read the file ``path``; empty when it does."""

    @property
    def key(self) -> str:
        """Where in its file the effective index stands; empty for a variable, or for none."""

    def with_file(self, path: Path, content: bytes) -> Self:
        """The configuration as it would be with ``content`` in ``path``."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the client install from other indexes too, or fail, one sentence each."""


class Client(Protocol):
    """An installer; ``name`` as in the registry and in messages."""

    @property
    def name(self) -> str: ...

    def variables(self, settings: ClientSettings) -> Values:
        """The environment variables that point one command at the index."""

    def risks(self, account: Account) -> tuple[str, ...]:
        """What makes it install from other indexes too, in spite of these variables; one sentence each."""


class ClientFile(Client, Protocol):
    """A client with a file that can point it at the index.

    ``scopes``: its files; the one of the user, in the home directory, is called ``user``. ``own_scopes``: those by the
    names that all clients share: user, project, environment, machine. ``index_key``: the key of the index address in
    the user's file. ``command``: what writes the file; ``undo``: what restores it.

    Nothing here writes. Methods that take or find content raise ClientFileError without the file's path, which the
    caller adds.
    """

    @property
    def scopes(self) -> tuple[str, ...]: ...

    @property
    def own_scopes(self) -> Mapping[str, str]: ...

    @property
    def index_key(self) -> str: ...

    @property
    def command(self) -> str: ...

    @property
    def undo(self) -> str: ...

    def detect(self, scope: str, account: Account) -> Path:
        """The file of one of ``scopes``, which need not exist. Raises ClientFileError when there is none here."""

    def part(self, path: Path) -> str:
        """The client's name if ``path`` is a file that other clients have settings in, too; else nothing."""

    def read(self, account: Account) -> ClientConfig:
        """What the client is configured to do. Runs nothing, raises nothing."""

    def values(self, settings: ClientSettings, path: Path) -> Values:
        """``settings`` as the file ``path`` has them."""

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        """What the user should know about these values, one sentence each."""

    def merge(self, content: bytes, values: Values) -> bytes:
        """``content`` with ``values`` set and every other byte as it was; merging again changes nothing. Pure.

        Raises ClientFileError when the client could not read ``content``, or when it can't be changed safely.
        """

    def unmerge(self, content: bytes, *, original: bytes, written: Sequence[Values]) -> Unmerged:
        """``content`` with deployer's values as they were in ``original``, and everything else as it is. Pure.

        ``written``: all values that deployer ever set in this file. Raises ClientFileError as :meth:`merge`.
        """
