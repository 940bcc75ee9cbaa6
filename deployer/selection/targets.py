"""For which Python and which platform files are wanted, and which file of a release is installed there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from deployer.errors import UsageError
from deployer.selection.wanted import LockedFile

if TYPE_CHECKING:
    from packaging.tags import Tag

_PYTHON = re.compile(r"3\.(\d{1,2})(\.\d{1,3})?")
_LINUX = re.compile(r"(?P<machine>[a-z0-9_]+)-(manylinux_2_(?P<glibc>\d{1,2})|(?P<legacy>manylinux20(10|14)))")
_TRIPLE = re.compile(
    r"(?P<machine>[a-z0-9_]+)-(?P<system>unknown-linux-gnu|unknown-linux-musl|pc-windows-msvc|apple-darwin)"
)
_ALIASES = {"linux": "x86_64-unknown-linux-gnu", "windows": "x86_64-pc-windows-msvc", "macos": "aarch64-apple-darwin"}
_MACHINES = ("x86_64", "aarch64", "i686", "armv7l", "ppc64le", "s390x", "riscv64", "loongarch64")
# What uv takes for a platform without a version (its documentation of `--python-platform`).
_GLIBC, _MUSL, _MACOS = 28, 2, (13, 0)


@dataclass(frozen=True, order=True)
class Target:
    """``python``: like ``3.11``. ``platform``: a name of uv's, like ``aarch64-apple-darwin``; empty: this host's."""

    python: str
    platform: str = ""

    def __post_init__(self) -> None:
        if not _PYTHON.fullmatch(self.python):
            raise UsageError(f"invalid Python version: {self.python}", hint="name one like --python 3.11")
        if self.platform:
            _platform(self.platform)

    @property
    def text(self) -> str:
        return f"Python {self.python} on {self.platform or 'this platform'}"

    @property
    def version(self) -> tuple[int, int]:
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another platform, or another Python, than those of this process."""
        return bool(self.platform) or self.version != sys.version_info[:2]

    @property
    def platform_tags(self) -> tuple[str, ...]:
        """The platforms of wheels that fit, the best first."""
        return _platform(self.platform).tags if self.platform else _host_tags()

    @cached_property
    def _ranks(self) -> dict[Tag, int]:
        from packaging.tags import compatible_tags, cpython_tags

        name = f"cp{self.version[0]}{self.version[1]}"
        platforms = list(self.platform_tags)
        tags = [
            *cpython_tags(self.version, [name], platforms),
            *compatible_tags(self.version, name, platforms),
        ]
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

    @cached_property
    def environment(self) -> dict[str, str]:
        """The values of environment markers (PEP 508) there."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        python = {
            "python_version": ".".join(self.python.split(".")[:2]),
            "python_full_version": full,
            "implementation_version": full,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        if self.platform:
            return {**python, **_platform(self.platform).environment}
        from packaging.markers import default_environment

        return {**{key: str(value) for key, value in default_environment().items()}, **python}

    def chosen(self, files: Iterable[LockedFile]) -> LockedFile | None:
        """The file of one release that an installer takes: the wheel that fits best, else the source distribution."""
        best: tuple[int, str, LockedFile] | None = None
        source = None
        for file in files:
            if not file.is_wheel:
                source = _better_source(source, file)
                continue
            rank = self._rank(file.name)
            if rank is not None and (best is None or (rank, file.name) < best[:2]):
                best = (rank, file.name, file)
        return best[2] if best else source

    def _rank(self, name: str) -> int | None:
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

        try:
            tags = parse_wheel_filename(name)[3]
        except InvalidWheelFilename:
            return None
        return min((self._ranks[tag] for tag in tags if tag in self._ranks), default=None)


def targets(pythons: Sequence[str], platforms: Sequence[str], *, own: str) -> tuple[Target, ...]:
    """Each Python on each platform. A word may have several, with commas. ``own``: the Python if none is named."""
    return tuple(
        Target(python, platform) for python in _words(pythons) or [own] for platform in _words(platforms) or [""]
    )


def _words(given: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(word.strip() for part in given for word in part.split(",") if word.strip()))


_SOURCES = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz")


def _better_source(one: LockedFile | None, other: LockedFile) -> LockedFile | None:
    """``.tar.gz`` before other archives; nothing but archives is a source distribution."""
    ranks = [_SOURCES.index(end) for end in _SOURCES if other.name.endswith(end)]
    if not ranks:
        return one
    return other if one is None or other.name.endswith(_SOURCES[0]) else one


@dataclass(frozen=True, kw_only=True)
class _Platform:
    tags: tuple[str, ...]
    environment: dict[str, str]


@cache
def _platform(name: str) -> _Platform:
    """Raises UsageError for an unknown name."""
    whole = _ALIASES.get(name, name)
    linux, triple = _LINUX.fullmatch(whole), _TRIPLE.fullmatch(whole)
    found = linux or triple
    if found is None or found["machine"] not in _MACHINES:
        raise UsageError(f"unknown platform: {name}", hint=f"name one that uv knows: {KNOWN}")
    machine = found["machine"]
    if linux:
        glibc = {"manylinux2010": 12, "manylinux2014": 17}.get(linux["legacy"] or "") or int(linux["glibc"])
        return _linux(machine, _manylinux(machine, glibc))
    match found["system"]:
        case "unknown-linux-gnu":
            return _linux(machine, _manylinux(machine, _GLIBC))
        case "unknown-linux-musl":
            return _linux(machine, (f"musllinux_1_{minor}_{machine}" for minor in range(_MUSL, -1, -1)))
        case "pc-windows-msvc":
            return _windows(machine)
        case _:
            return _macos(machine)


KNOWN = "linux, macos, windows, x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu, x86_64-manylinux_2_17 …"
"""Some of the platforms, for messages."""


def is_platform(name: str) -> bool:
    """Whether it is the name of a platform."""
    try:
        _platform(name)
    except UsageError:
        return False
    return True


_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def _manylinux(machine: str, glibc: int) -> Iterator[str]:
    for minor in range(glibc, 4, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"


def _linux(machine: str, tags: Iterable[str]) -> _Platform:
    names = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    return _Platform(tags=(*tags, f"linux_{machine}"), environment={**names, **_UNKNOWN})


def _windows(machine: str) -> _Platform:
    tag, name = {"x86_64": ("win_amd64", "AMD64"), "aarch64": ("win_arm64", "ARM64")}.get(machine, ("win32", "x86"))
    names = {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": name}
    return _Platform(tags=(tag,), environment={**names, **_UNKNOWN})


def _macos(machine: str) -> _Platform:
    from packaging.tags import mac_platforms

    arch = "arm64" if machine == "aarch64" else machine
    names = {"os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": arch}
    return _Platform(tags=tuple(mac_platforms(_MACOS, arch)), environment={**names, **_UNKNOWN})


_UNKNOWN = {"platform_release": "", "platform_version": ""}


@cache
def _host_tags() -> tuple[str, ...]:
    from packaging.tags import platform_tags

    return tuple(platform_tags())
