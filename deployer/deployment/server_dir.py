"""The few small files of a server directory that deployer reads, wherever the directory is.

Of a bind (or a process) they are read from this host when it may; of a volume, or of a directory that belongs to
somebody else, through the engine.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from deployer.engines.base import Engine
from deployer.errors import EngineError
from deployer.secrets import Secret
from deployer.spec import Container, Mount

ROOT_PASSWORD = ".deployer/root-password"  # noqa: S105 - a file's name
PROOF_KEY = ".deployer/proof-key"
STATISTICS = ".deployer/statistics.json"
NODEINFO = ".nodeinfo"


@dataclass(frozen=True, kw_only=True)
class ServerDir:
    """Where the server directory of one container is: ``mount`` leads to it."""

    engine: Engine
    container: str
    mount: Mount

    @classmethod
    def of(cls, engine: Engine, container: Container) -> ServerDir | None:
        """The server directory of ``container``: the one mount that it may write to."""
        mount = next((mount for mount in container.mounts if not mount.read_only), None)
        return cls(engine=engine, container=container.name, mount=mount) if mount else None

    @property
    def path(self) -> Path | None:
        """The directory on this host; ``None`` for a volume."""
        return Path(self.mount.source) if self.mount.kind == "bind" else None

    def read(self, relative: str) -> str | None:
        """The text of a file, stripped; ``None`` when it is absent."""
        if self.path is not None:
            try:
                return (self.path / relative).read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                return None
            except PermissionError:
                pass
        result = self.engine.exec(self.container, ("cat", f"{self.mount.target}/{relative}"))
        return result.stdout.strip() if result.returncode == 0 else None

    def write(self, relative: str, text: str, *, verb: tuple[str, ...]) -> None:
        """Replace a private file (0600, its directory's owner's), where we may; else the server's own ``verb`` does it
        inside, from standard input. Raises EngineError.
        """
        if self.path is not None:
            target = self.path / relative
            owner = target.parent.stat() if os.access(target.parent, os.W_OK) else None
            if owner is not None and os.geteuid() in (0, owner.st_uid):
                _replace(target, text, uid=owner.st_uid, gid=owner.st_gid)
                return
        inside = ("/opt/deployer/bin/python", "-m", "deployer.server", *verb, "--serverdir", self.mount.target)
        result = self.engine.exec(self.container, inside, stdin=text.encode())
        if result.returncode:
            raise EngineError(f"{self.container}: {verb[0]}: {result.stderr.strip()}", hint="deployer logs")

    def uuid(self) -> str | None:
        """The identity of the data: what a server that runs on it must answer with."""
        text = self.read(NODEINFO)
        try:
            uuid = json.loads(text)["uuid"] if text else None
        except (ValueError, KeyError, TypeError):
            return None
        return uuid if isinstance(uuid, str) else None

    def proof_key(self) -> str | None:
        return self.read(PROOF_KEY)

    def statistics(self) -> str | None:
        """What the server has counted, as JSON."""
        return self.read(STATISTICS)

    def root_password(self) -> Secret | None:
        text = self.read(ROOT_PASSWORD)
        return Secret(text) if text else None

    def set_root_password(self, password: Secret) -> None:
        """Keep what the server has already. Raises EngineError."""
        self.write(ROOT_PASSWORD, password.reveal() + "\n", verb=("secret", "set", "root"))


def _replace(target: Path, text: str, *, uid: int, gid: int) -> None:
    # The directory belongs to the server, which could have put a link there: it is taken away, never followed.
    temporary = target.with_name(f"{target.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        if os.geteuid() != uid:
            os.fchown(descriptor, uid, gid)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    temporary.replace(target)
