"""Quotas of indexes: how many bytes of uploads an index may have. One that would have more refuses the upload.

What counts is what is on the disk below the index: releases, documentation, test results. devpi has one writer at a
time, so between the count and the commit no other upload comes in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ref

from devpi_server.views import abort_submit, apiresult
from pyramid.threadlocal import get_current_request

from deployer.protocol import QuotaNow, parse_size
from deployer.server.devpi.installed import inside
from deployer.server.devpi.stored import FILES

NAME = "deployer-quotas"
TOO_MUCH = 413
"""Not 507: clients try again after a status of 500 or more."""
FORM = 1 << 20
"""Bytes that a form may have besides its file, as metadata with a long description."""
_STORES = ("store_releasefile", "store_doczip", "store_toxresult")


@dataclass
class _Used:
    """Bytes of an index: at least what is on the disk, and those that the transaction ``of`` adds.

    What was deleted or rolled back since is noticed by the next count, of which a transaction makes at most one.
    """

    stored: int = 0
    added: int = 0
    counted: bool = False
    of: Callable[[], object] = lambda: None


@dataclass
class Quotas:
    """``limits``: bytes by ``user/index``. Registered as a devpi plugin, like push targets."""

    limits: Mapping[str, int] = field(default_factory=dict)
    _used: dict[str, _Used] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Iterable[str]) -> Quotas:
        """``words``: like ``user/index=5g``."""
        return cls({name: parse_size(size) for name, _, size in (word.partition("=") for word in words)})

    def refusal(self, stage: Any, size: int) -> str:
        """Why ``stage`` takes no ``size`` bytes more; empty when it does, and then they count."""
        limit = self.limits.get(stage.name)
        if limit is None:
            return ""
        tx, first = stage.xom.keyfs.tx, stage.name not in self._used
        used = self._used.setdefault(stage.name, _Used())
        if used.of() is not tx:
            used.stored, used.added, used.counted, used.of = used.stored + used.added, 0, False, ref(tx)
        if first or (used.stored + used.added + size > limit and not used.counted):
            used.stored, used.counted = bytes_of(Path(stage.xom.config.server_path), stage.name), True
        if used.stored + used.added + size > limit:
            return _refused(stage.name, max(0, limit - used.stored - used.added), limit, size)
        used.added += size
        return ""

    def early(self, stage: Any, length: int) -> str:
        """Why a request with a body of ``length`` bytes will be refused; empty if it may fit."""
        limit = self.limits.get(stage.name)
        if limit is None or length <= FORM:
            return ""
        left = max(0, limit - bytes_of(Path(stage.xom.config.server_path), stage.name))
        return _refused(stage.name, left, limit, length) if length - FORM > left else ""


def _refused(index: str, left: int, limit: int, size: int) -> str:
    return f"{index} has {_told(left)} left of its quota of {_told(limit)}: this file has {_told(size)}"


def bytes_of(serverdir: Path, index: str) -> int:
    """Bytes of all files of an index."""
    return sum(_sizes(os.path.join(serverdir, FILES, *index.split("/"))))  # noqa: PTH118 - as scandir has them


def _sizes(directory: str) -> Iterator[int]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(entry.path)
                else:
                    yield entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # nothing was uploaded yet, or it is just deleted
        return


def now(config: Any) -> Mapping[str, QuotaNow]:
    """What is used of each quota of this server. ``config``: devpi's."""
    serverdir, limits = Path(config.server_path), given(config).limits
    return {index: QuotaNow(used=bytes_of(serverdir, index), limit=limit) for index, limit in limits.items()}


def given(config: Any) -> Quotas:
    """The quotas of this server. ``config``: devpi's."""
    found: Quotas | None = config.pluginmanager.get_plugin(NAME)
    return found or Quotas()


def install() -> None:
    """Replace devpi's methods that store a file of an index by ones that count first."""
    for name in _STORES:
        setattr(inside().LOCAL_INDEX, name, _counted(getattr(inside().LOCAL_INDEX, name)))


def _counted(store: Any) -> Any:
    def counted(self: Any, *args: Any, **named: Any) -> Any:
        content = named.get("content_or_file", next((one for one in args if _is_content(one)), b""))
        why = given(self.xom.config).refusal(self, _size(content))
        if why and (request := get_current_request()) is not None:
            self.xom.keyfs.tx.doom()  # devpi has stored the version already
            if "application/json" in request.headers.get("Accept", ""):
                raise apiresult(TOO_MUCH, why)  # of the other one, JSON has no message
            abort_submit(request, TOO_MUCH, why)
        return store(self, *args, **named)

    return counted


def _is_content(value: object) -> bool:
    return isinstance(value, bytes) or hasattr(value, "seek")


def _size(content: Any) -> int:
    if isinstance(content, bytes):
        return len(content)
    at = content.tell()
    size = int(content.seek(0, os.SEEK_END))
    content.seek(at)
    return size


def _told(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
