"""What the clients with TOML files have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from deployer.clients import files
from deployer.clients.client import Account, ClientSettings, Unmerged, Values
from deployer.clients.text import decode
from deployer.clients.toml import config, editing
from deployer.clients.toml.config import Place, TomlConfig
from deployer.errors import ClientFileError

PROJECT = "pyproject.toml"


class TomlClient:
    """A client whose index is one key of a TOML file.

    ``index_keys``: that key, by the name of the file; the first is that of the user's file. ``more``: what else is set
    in a file, by the same name. ``variable``: what points one command at the index.
    """

    name: ClassVar[str]
    scopes: ClassVar[tuple[str, ...]]
    index_keys: ClassVar[Mapping[str, str]]
    more: ClassVar[Mapping[str, Values]] = {}
    variable: ClassVar[str]

    @property
    def index_key(self) -> str:
        return next(iter(self.index_keys.values()))

    def key_of(self, path: Path) -> str:
        """The key of the index in the file ``path``; a file of any other name is the user's."""
        return self.index_keys.get(path.name, self.index_key)

    @property
    def command(self) -> str:
        return f"deployer clients apply {self.name}"

    @property
    def undo(self) -> str:
        return f"deployer clients undo {self.name}"

    @property
    def own_scopes(self) -> Mapping[str, str]:
        return {scope: scope for scope in self.scopes}

    def variables(self, settings: ClientSettings) -> Values:
        return {self.variable: settings.index_url}

    def risks(self, account: Account) -> tuple[str, ...]:
        return self.read(account).warnings

    def part(self, path: Path) -> str:
        return self.name if path.name == PROJECT else ""

    def values(self, settings: ClientSettings, path: Path) -> Values:
        if path.name == PROJECT and "@" in settings.index_url.partition("://")[2].partition("/")[0]:
            raise ClientFileError(
                f"no password is written into {PROJECT}, which others read",
                hint="choose --scope user, or a token-free URL",
            )
        return {self.key_of(path): settings.index_url, **self.more.get(path.name, {})}

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        return ()

    def merge(self, content: bytes, values: Values) -> bytes:
        return editing.merge(decode(content), values).encode()

    def unmerge(self, content: bytes, *, original: bytes, written: Sequence[Values]) -> Unmerged:
        text, kept = editing.unmerge(decode(content), original=decode(original), written=written)
        return Unmerged(text.encode(), kept)

    def read(self, account: Account) -> TomlConfig:
        return TomlConfig(places=self.places(account), hazards=self.hazards)

    def places(self, account: Account) -> tuple[Place, ...]:
        """All files and variables that may name the index, in rising precedence."""
        raise NotImplementedError

    def hazards(self, places: tuple[Place, ...]) -> tuple[str, ...]:
        """What makes the client install from other indexes too, one sentence each."""
        return ()

    # For subclasses

    def file(self, path: Path, *more: str, ignored: str = "") -> Place:
        """The file ``path`` as a place; ``more``: further keys of the index, weaker than ours."""
        try:
            content = files.read_bytes(path)
        except ClientFileError:
            content = None
        return config.file(path, (*more, self.key_of(path)), content, ignored=ignored)

    def variables_of(self, account: Account, *names: str) -> tuple[Place, ...]:
        """Variables as places, in rising precedence."""
        return tuple(Place(variable=name, value=account.env.get(name, "")) for name in names)


def user_directory(account: Account, name: str) -> Path:
    """Where platformdirs has the user's configuration of ``name``."""
    if account.platform == "darwin":
        return account.home / "Library/Application Support" / name
    base = account.env.get("XDG_CONFIG_HOME", "").strip()
    return (Path(base) if base else account.home / ".config") / name


def site_directories(account: Account, name: str) -> tuple[Path, ...]:
    """Where platformdirs has the machine's configuration of ``name``, the strongest first."""
    if account.platform == "darwin":
        return (Path("/Library/Application Support") / name,)
    base = account.env.get("XDG_CONFIG_DIRS", "").strip() or "/etc/xdg"
    return tuple(Path(folder) / name for folder in base.split(":") if folder)


def project_directory(account: Account, *markers: str) -> Path | None:
    """The nearest directory at or above the current one that has one of the files ``markers``."""
    folders = (account.directory, *account.directory.parents)
    return next((folder for folder in folders if any((folder / name).is_file() for name in markers)), None)


def no_project() -> ClientFileError:
    return ClientFileError(f"there is no {PROJECT} here", hint="change to the project's directory")
