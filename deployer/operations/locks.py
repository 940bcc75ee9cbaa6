"""Lock files that name our index: finding our addresses in them, and mending them with what the server says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TypeVar

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from deployer.clients.locks.addresses import Address, find, packages
from deployer.clients.locks.repair import Left, Repaired, Unknown, repair
from deployer.devpi.packages import ListedFile
from deployer.devpi.upstreams import UpstreamApi
from deployer.errors import ClientFileError, DeployerError, UsageError
from deployer.files import replacing
from deployer.protocol import parsed

KINDS = ("uv.lock", "pylock*.toml", "poetry.lock", "pdm.lock", "Pipfile.lock", "*requirements*.txt")
"""The names of lock files, by default looked for in the current directory."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file and its content."""

    path: Path
    text: str


def read(paths: Sequence[str], directory: Path) -> list[Lock]:
    """Read the lock files ``paths``, by default those of ``directory``. Raises UsageError."""
    chosen = [directory / path for path in paths] or sorted(path for path in directory.iterdir() if _is_lock(path))
    if not chosen:
        raise UsageError("there is no lock file here", hint=f"name one; known are {', '.join(KINDS)}")
    return [Lock(path=path, text=_text(path)) for path in chosen]


def _is_lock(path: Path) -> bool:
    return path.is_file() and any(fnmatch(path.name, kind) for kind in KINDS)


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path} can't be read: {reason}", hint="name a lock file") from None


def found(lock: Lock, allowed: Sequence[str] = ()) -> tuple[Address, ...]:
    """The addresses of a devpi index in ``lock``, without those of packages that only ``allowed`` indexes serve."""
    if not allowed:
        return find(lock.text)
    kept: list[Address] = []
    for package in packages(lock.text):
        served = [address.index for address in package.addresses if address.filename]
        if not set(served or [address.index for address in package.addresses]) <= set(allowed):
            kept += package.addresses
    return tuple(sorted(kept, key=lambda address: address.start))


class Server:
    """The server of the index, as ``repair`` asks it. Each question is asked once."""

    def __init__(self, api: UpstreamApi) -> None:
        self._api = api
        self.base = api.url
        self.default_upstream = api.identity().default_mirror_url
        self._config = cache(self._kind_of)
        self._originals = cache(lambda mirror, project: _asked(lambda: api.originals(mirror, project)))
        self._files = cache(lambda index, project: _asked(lambda: api.files(index, project)))

    def original(self, mirror: str, filename: str, digest: str) -> str:
        self.upstream(mirror)
        project = _project(filename)
        files: tuple[ListedFile, ...] = self._originals(mirror, project) or ()
        found = next((file for file in files if file.filename == filename), None)
        if found is None or not found.url:
            raise Unknown(f"the upstream of {mirror} has no {filename}")
        if digest and found.sha256 and not found.sha256.startswith(digest):
            raise Unknown(f"the upstream of {mirror} has another {filename} now")
        return found.url

    def owner(self, index: str, project: str, filename: str = "") -> str:
        files = [file for file in self._files(index, project) if filename in ("", file.filename)]
        owners = {address.index for file in files for address in find(file.url)}
        if not owners:
            raise Unknown(f"{index} has no {filename or project}")
        if len(owners) > 1:
            raise Unknown(f"{project} is on several indexes: {', '.join(sorted(owners))}")
        return owners.pop()

    def mirror_of(self, index: str) -> str:
        mirrors = list(self._mirrors(index, set()))
        if len(mirrors) != 1:
            raise Unknown(f"{index} has {len(mirrors) or 'no'} mirrors")
        return mirrors[0]

    def upstream(self, mirror: str) -> str:
        url, _ = self._config(mirror)
        if not url:
            raise Unknown(f"it is a private package of {mirror}", private=True)
        return url

    def _mirrors(self, index: str, seen: set[str]) -> Iterator[str]:
        if index in seen:
            return
        seen.add(index)
        url, bases = self._config(index)
        if url:
            yield index
        for base in bases:
            yield from self._mirrors(base, seen)

    def _kind_of(self, index: str) -> tuple[str, tuple[str, ...]]:
        return _asked(lambda: (self._api.upstream(index), self._api.bases(index)))


def _asked(question: Callable[[], _T]) -> _T:
    """The answer of the server; its refusal as the reason why an address stays. Raises NotReadyError."""
    from deployer.errors import NotReadyError

    try:
        return question()
    except NotReadyError:
        raise
    except DeployerError as error:
        raise Unknown(error.message) from None


def _project(filename: str) -> str:
    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[0])
        return str(parse_sdist_filename(filename)[0])
    except (InvalidWheelFilename, InvalidSdistFilename):
        raise Unknown(f"{filename} is not the name of a wheel or source distribution") from None


def mended(lock: Lock, server: Server) -> Repaired:
    """Return ``lock`` with the upstream's addresses; nothing is written. Raises NotReadyError."""
    result = repair(lock.text, kind=lock.path.name, index=server)
    if not _parses(lock.path.name, result.text):
        raise DeployerError(f"{lock.path} would be damaged", hint="report it with the lock file")
    return result


def _parses(name: str, text: str) -> bool:
    try:
        if name == "Pipfile.lock":
            parsed(text)
        elif name.endswith((".lock", ".toml")):
            tomllib.loads(text)
    except ValueError:
        return False
    return True


def write(lock: Lock, text: str) -> None:
    """Replace the content of ``lock`` atomically. Raises ClientFileError."""
    try:
        real = lock.path.resolve()
        with replacing(real, mode=real.stat().st_mode & 0o7777, exact=True) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise ClientFileError(
            f"{lock.path} can't be written: {error.strerror}", hint=f"check its permissions: ls -l {lock.path}"
        ) from None


def row(lock: Lock, addresses: Sequence[Address]) -> Mapping[str, object]:
    """What was found, as the JSON envelope has it."""
    return {"path": str(lock.path), "addresses": [{"line": one.line, "url": one.shown} for one in addresses]}


def reasons(left: Sequence[Left]) -> list[str]:
    """Each package that keeps our addresses, and why."""
    return list(dict.fromkeys(f"{one.name}: {one.reason}" for one in left))


def server_of(simple_url: str) -> str:
    """The address of the server that has the index ``simple_url``."""
    found = re.fullmatch(r"(.*)/[^/]+/[^/]+/\+simple/?", simple_url)
    return found[1] if found else simple_url.rstrip("/")
