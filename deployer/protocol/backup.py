"""What a backup, a copy and a check say: the manifest, lost files, findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from deployer.protocol.files import NODEINFO
from deployer.protocol.values import parsed


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Output of ``copy``: files, their bytes, and one digest over the path and the digest of each file."""

    files: int = 0
    bytes: int = 0
    sha256: str = ""

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A file that a database knows, and that is missing or damaged. ``mirror``: it can be fetched again."""

    path: str
    why: str
    mirror: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding(Lost):
    """Something wrong with the data. ``kind``: ``damaged``, ``missing``, ``orphan``, ``page`` or ``served``.

    ``done``: the repair; empty without.
    """

    kind: str
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """The manifest of a backup.

    ``serial``: devpi's last commit in it. ``pieces``: digests of the pieces of the database. ``files_sha256``: digest
    of the list of files, as ``sha256sum`` writes it; ``files``: their number; ``left_out``: files of mirrors that are
    not in it; ``size``: bytes of files and database. ``lost``: files that the server had lost already. ``small``:
    devpi's small files, by name. ``profile``: what the last ``up`` applied. ``secrets``: encrypted with age; empty when
    they were left out. ``owners_sha256``: digest of the list of who served names first; empty without one.
    """

    name: str = ""
    created: str = ""
    deployment: str = ""
    deployer: str = ""
    server_version: str = ""
    uuid: str = ""
    serial: int = -1
    database: str = ""
    pieces: tuple[str, ...] = ()
    files_sha256: str = ""
    owners_sha256: str = ""
    files: int = 0
    left_out: int = 0
    size: int = 0
    cache: bool = True
    lost: tuple[Lost, ...] = ()
    small: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    secrets: str = ""

    SCHEMA: ClassVar[int] = 1
    _NAME: ClassVar[re.Pattern[str]] = re.compile(r"\d{4,9}-\d{8}T\d{6}Z")
    _DIGEST: ClassVar[re.Pattern[str]] = re.compile(r"[0-9a-f]{64}")

    @property
    def json(self) -> dict[str, Any]:
        return {"schema": self.SCHEMA, **asdict(self)}

    @property
    def blobs(self) -> set[str]:
        """The digests of all that it needs besides the files of packages."""
        return {digest for digest in (*self.pieces, self.files_sha256, self.owners_sha256) if digest}

    @property
    def summary(self) -> dict[str, object]:
        """What commands show of it."""
        shown = ("name", "created", "deployment", "server_version", "uuid", "serial", "files", "left_out")
        found: dict[str, object] = {key: getattr(self, key) for key in shown}
        return {
            **found,
            "bytes": self.size,
            "cache": self.cache,
            "secrets": bool(self.secrets),
            "lost": [asdict(one) for one in self.lost],
        }

    @classmethod
    def parse(cls, text: bytes) -> Backup | None:
        """Read a manifest, which may be damaged; None when it is, or when a newer deployer wrote it."""
        try:
            said = parsed(text)
            if said.pop("schema") != cls.SCHEMA:
                return None
            lost = tuple(Lost(**one) for one in said.pop("lost"))
            found = cls(**{**said, "pieces": tuple(said["pieces"]), "lost": lost})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if not cls._typed(found):
            return None
        digests = (*found.pieces, found.files_sha256, *((found.owners_sha256,) if found.owners_sha256 else ()))
        plain = set(found.small) <= {NODEINFO, ".serverversion", ".event_serial"}
        named = found.database in (".sqlite", ".sqlite_alchemy")
        whole = all(isinstance(one, str) and cls._DIGEST.fullmatch(one) for one in digests)
        return found if cls._NAME.fullmatch(found.name) and plain and named and whole else None

    @classmethod
    def _typed(cls, found: Backup) -> bool:
        """Whether every value has the type of its default, the words are printable, and the time is one."""
        default = cls()
        for key, value in asdict(found).items():
            expected = type(getattr(default, key))
            if type(value) is not expected or (expected is str and not value.isprintable()):
                return False
        texts = (*found.small.values(), *(text for one in found.lost for text in (one.path, one.why)))
        if not all(isinstance(text, str) for text in texts):
            return False
        try:
            return datetime.fromisoformat(found.created).tzinfo is not None
        except ValueError:
            return False
