"""Files of mirrors as devpi stores them: what both versions of devpi-server need to know of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from devpi_server.filestore import Digests


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """``path``: below the mirror ``index``. ``file``: the file object of its page. ``content``: what devpi takes, or
    None for the entry alone; ``digests``, ``size`` and ``last_modified`` are the content's."""

    index: str
    path: str
    project: str
    file: Mapping[str, Any]
    content: Any = None
    digests: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    last_modified: str = ""

    @property
    def place(self) -> str:
        return f"{self.index}/{self.path}"


def restored(xom: Any, files: Iterable[KeptFile], *, mirror: Callable[[Any, str], Any]) -> list[KeptFile]:
    """Store the content of files whose entry devpi has and whose content is lost; return the other files.

    ``mirror``: returns the mirror of a name, or raises LookupError.
    """
    new, lost = [], []
    with xom.keyfs.read_transaction():
        for one in files:
            mirror(xom, one.index)
            known = xom.filestore.get_file_entry(one.place)
            has_entry = known is not None and known.has_existing_metadata()
            if has_entry and one.content is not None and known.hashes.get("sha256") == one.digests.get("sha256"):
                lost.append((known, one))
            else:
                new.append(one)
    for known, one in lost:
        with xom.keyfs.filestore_transaction():
            known.file_set_content_no_meta(one.content, hashes=Digests(one.digests))
    return new
