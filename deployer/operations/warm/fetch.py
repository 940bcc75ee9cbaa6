"""Have the server fetch files: only those that are not here, each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from deployer.operations.warm.index import Index, NotFetched
from deployer.operations.warm.threads import Each
from deployer.selection.pages import Listed

STORED = 30.0
"""Seconds without progress after which files that came are not stored: a client has a file before it is."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Paths that were here, that were fetched with their bytes, and that failed with the reason."""

    cached: tuple[str, ...] = ()
    fetched: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def joined(self, other: Found) -> Found:
        return Found(
            cached=(*self.cached, *other.cached),
            fetched={**self.fetched, **other.fetched},
            failed={**self.failed, **other.failed},
        )


def fetch_all(index: Index, files: Mapping[str, tuple[str, Listed]], each: Each, tell: Callable[[str], None]) -> Found:
    """Have all ``files`` fetched, by their path. Raises NotReadyError when the server does not answer."""
    failed = {path: "its mirror leaves it at another server" for path, (_, one) in files.items() if not one.path}
    paths = [path for path in files if path not in failed]
    here = dict(zip(paths, each(index.is_here, paths), strict=True))
    wanted = [path for path in paths if not here[path]]
    done = count(1)
    if wanted:
        tell(f"0 of {len(wanted)} files")

    def fetch(path: str) -> int | str:
        try:
            return index.fetch(files[path][1])
        except NotFetched as error:
            return str(error)
        finally:
            tell(f"{next(done)} of {len(wanted)} files")

    came = dict(zip(wanted, each(fetch, wanted), strict=True))
    failed |= {path: size for path, size in came.items() if isinstance(size, str)}
    fetched = {path: size for path, size in came.items() if isinstance(size, int)}
    lost = _not_stored(index, list(fetched), each)
    return Found(
        cached=tuple(path for path in paths if here[path]),
        fetched={path: size for path, size in fetched.items() if path not in lost},
        failed={**failed, **dict.fromkeys(lost, "the server could not store it: see deployer logs")},
    )


def _not_stored(index: Index, paths: list[str], each: Each) -> list[str]:
    deadline = time.monotonic() + STORED
    while paths and time.monotonic() < deadline:
        here = each(index.is_here, paths)
        left = [path for path, stored in zip(paths, here, strict=True) if not stored]
        if len(left) < len(paths):
            deadline = time.monotonic() + STORED
        elif left:
            time.sleep(0.05)
        paths = left
    return paths
