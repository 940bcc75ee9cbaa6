"""What lock files name: projects, versions and files. Pure, apart from ``read``, which opens the file.

``read`` knows ``uv.lock``, ``pylock.toml``, ``poetry.lock``, ``pdm.lock`` and requirements that are pinned. What
does not come from an index (a directory, a repository, an address) is left out.
"""

from __future__ import annotations

from pathlib import Path

from deployer.selection.locks import FORMATS, format_of
from deployer.selection.requirements import parse as _parse_requirements
from deployer.selection.wanted import LockedFile, NotReadable, Wanted

__all__ = ["LockedFile", "NotReadable", "Wanted", "is_lock", "read"]

LARGEST = 64 << 20
"""Bytes of a lock file; the largest in use have a few million."""


def is_lock(path: Path) -> bool:
    """Whether the file's name is that of a lock file. Any other file is taken for requirements."""
    return format_of(path.name) is not None


def read(path: Path) -> tuple[Wanted, ...]:
    """Return what a lock file, or a file of pinned requirements, names; sorted, each project and version once.

    Raises NotReadable: no such file, a damaged one, a requirement without a version.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise NotReadable(f"{path}: larger than {LARGEST >> 20} MiB", hint="name a lock file with -r")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise NotReadable(f"{path}: not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise NotReadable(f"{path}: {error.strerror or error}", hint="name an existing file with -r") from None
    kind = format_of(path.name)
    found = FORMATS[kind](text, str(path)) if kind is not None else _parse_requirements(text, path)
    return merged(found)


def merged(found: list[Wanted]) -> tuple[Wanted, ...]:
    """Each project and version once; a version that is listed several times is wanted where one of its entries is."""
    once: dict[tuple[str, str], Wanted] = {}
    for item in found:
        key = (item.project, item.version)
        once[key] = item if key not in once else once[key].joined(item)
    return tuple(once[key] for key in sorted(once))
