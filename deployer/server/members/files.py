"""The files of a replica's mirrors: the primary fetches and stores them, and they come here by replication.

A file that a client wants comes from the primary at once, and is kept below ``.deployer/arrived`` until devpi's
replication has stored it: it looks there first. While the primary is down, files of pages that are known come from
their upstreams.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deployer.server.members.primary import Primary
from deployer.server.mirrors.companions import LARGEST, Companions
from deployer.server.mirrors.files import FileRefused, FileResponse, Found, RemoteFiles, for_client
from deployer.server.mirrors.render import METADATA
from deployer.server.upstream.client import NoAnswer


class ReplicaFiles(RemoteFiles):
    """``arrived``: where files wait for replication. ``may_ask``: whether upstreams may be asked while the primary does
    not answer. ``on_demand``: the mirrors whose files are not replicated: they stay when they have come."""

    def __init__(
        self,
        *args: Any,
        primary: Primary,
        arrived: Path,
        may_ask: Callable[[], bool],
        on_demand: Collection[str] = (),
    ) -> None:
        super().__init__(*args)
        self._primary, self._arrived, self.may_ask = primary, arrived, may_ask
        self.on_demand = frozenset(on_demand)
        self._waiting: set[str] = set()
        self._lock = threading.Lock()

    def _stored(self, found: Found) -> Path:
        stored = super()._stored(found)
        if stored.exists():
            return stored
        arrived = self._arrived / found.mirror.name / found.path
        return arrived if arrived.exists() else stored

    def _ask(self, stack: contextlib.ExitStack, found: Found, headers: dict[str, str], method: str = "GET") -> Any:
        response = self._primary.stream(stack, method, f"{found.mirror.name}/{found.path}", headers)
        if response is not None:
            return response
        if not self.may_ask():
            raise FileRefused("the primary does not answer")
        return super()._ask(stack, found, headers, method)

    def _keep(self, found: Found, spool: Any, last_modified: str) -> None:
        path, stays = f"{found.mirror.name}/{found.path}", found.mirror.name in self.on_demand
        target = (self._files if stays else self._arrived) / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(spool.path, target)
        if not stays:
            with self._lock:
                self._waiting.add(path)
        self.on_kept(found)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove what the primary has removed of files that are not replicated; other files are devpi's to remove."""
        for path in paths:
            if "/".join(path.split("/")[:2]) in self.on_demand:
                (self._files / path).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the files that replication has stored meanwhile."""
        with self._lock:
            waiting = set(self._waiting)
        for path in waiting:
            if (self._files / path).exists():
                arrived = self._arrived / path
                arrived.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # others wait there
                    arrived.parent.rmdir()
                    arrived.parent.parent.rmdir()
                with self._lock:
                    self._waiting.discard(path)

    def enter(self, found: Found) -> None:
        """Nothing: devpi learns of a file by replication."""


class ReplicaCompanions(Companions):
    """Metadata, provenance and signatures, as the primary has them."""

    def __init__(self, *args: Any, primary: Primary, may_ask: Callable[[], bool]) -> None:
        super().__init__(*args)
        self._primary, self._may_ask = primary, may_ask

    def _metadata(self, found: Found, whole: Callable[[FileResponse | None], None]) -> bytes:
        content = self._asked(found, METADATA)
        return super()._metadata(found, whole) if content is None else content

    def _other(self, found: Found, suffix: str) -> bytes:
        content = self._asked(found, suffix)
        return super()._other(found, suffix) if content is None else content

    def _asked(self, found: Found, suffix: str) -> bytes | None:
        """What the primary has; None when it does not answer, and upstreams may be asked. Raises FileRefused."""
        try:
            answer = self._primary.get(f"{found.mirror.name}/{found.path}{suffix}", {})
        except NoAnswer:
            if self._may_ask():
                return None
            raise FileRefused("the primary does not answer") from None
        if answer.status_code != HTTPStatus.OK or len(answer.content) > LARGEST:
            raise FileRefused(
                f"the primary answers with status {answer.status_code}", status=for_client(answer.status_code)
            )
        return bytes(answer.content)
