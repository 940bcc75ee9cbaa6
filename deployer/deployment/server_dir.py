"""The few small files of a server directory that deployer reads and writes.

Files of a bind mount (or a process) are read on this host where permitted; files of a volume, or of another user's
directory, through the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError, EngineError, Refused
from deployer.host import untrusted
from deployer.host.gather import NODEINFO, parse_uuid
from deployer.protocol import CHANGE_LOGS, IMAGE_PYTHON, PrivateFile, Refusal
from deployer.secrets import Secret
from deployer.spec import Container, Mount


@dataclass(frozen=True, kw_only=True)
class ServerDir:
    """The server directory of one container, by its ``mount``."""

    engine: Engine
    container: str
    mount: Mount

    @classmethod
    def of(cls, engine: Engine, container: Container) -> ServerDir | None:
        """The server directory of ``container``: its one writable mount."""
        mount = next((mount for mount in container.mounts if not mount.read_only), None)
        return cls(engine=engine, container=container.name, mount=mount) if mount else None

    @property
    def path(self) -> Path | None:
        """The directory on this host; ``None`` for a volume."""
        return Path(self.mount.source) if self.mount.kind == "bind" else None

    def read(self, relative: str) -> str | None:
        """Read a file, stripped; None when it is absent.

        The server's user may write there, so a link is never followed. Raises Refused, ConflictError, EngineError.
        """
        if self.path is not None:
            try:
                content = untrusted.read(self.path, relative)
                return None if content is None else content.decode("utf-8", errors="replace").strip()
            except PermissionError:
                pass
            except untrusted.Untrusted as error:
                raise _refusal(error, self.path) from None
            except OSError as error:
                path = self.path / relative
                raise ConflictError(f"{path} can't be read: {error.strerror}", hint="deployer doctor") from None
        result = self.engine.exec(self.container, ("cat", f"{self.mount.target}/{relative}"))
        return result.stdout.strip() if result.returncode == 0 else None

    def access_log(self) -> tuple[str, ...]:
        """The last lines of the access log, at most a megabyte. Raises as :meth:`read`."""
        relative = PrivateFile.ACCESS_LOG.relative
        if self.path is not None:
            try:
                content = untrusted.tail(self.path, relative)
                return tuple((content or b"").decode("utf-8", errors="replace").splitlines())
            except PermissionError:
                pass
            except untrusted.Untrusted as error:
                raise _refusal(error, self.path) from None
        words = ("tail", "-c", str(untrusted.LIMIT), f"{self.mount.target}/{relative}")
        result = self.engine.exec(self.container, words)
        return tuple(result.stdout.splitlines()) if result.returncode == 0 else ()

    def changes(self, log: PrivateFile) -> tuple[str, ...]:
        """The lines of the log of changes, or of that of refusals, the oldest first. Raises as :meth:`read`."""
        names = [log.relative, *(f"{log.relative}.{number}" for number in range(1, CHANGE_LOGS))][::-1]
        if self.path is not None:
            try:
                found = [untrusted.tail(self.path, name, limit=2 * untrusted.LIMIT) or b"" for name in names]
                return tuple(b"".join(found).decode("utf-8", errors="replace").splitlines())
            except PermissionError:
                pass
            except untrusted.Untrusted as error:
                raise _refusal(error, self.path) from None
        # Without those that don't exist yet, which make an exit code of 1.
        result = self.engine.exec(self.container, ("cat", *(f"{self.mount.target}/{name}" for name in names)))
        return tuple(result.stdout.splitlines())

    def write(self, relative: str, text: str, *, verb: tuple[str, ...]) -> None:
        """Replace a private file (0600, with the owner of its directory).

        Where this user may not, the server's own ``verb`` writes it inside the container. Raises EngineError.
        """
        if self.path is not None:
            try:
                untrusted.replace(self.path, relative, text.encode())
                return
            except PermissionError:
                pass
            except untrusted.Untrusted as error:
                raise _refusal(error, self.path) from None
        inside = (*IMAGE_PYTHON, "-m", "deployer.server", *verb, "--serverdir", self.mount.target)
        result = self.engine.exec(self.container, inside, stdin=text.encode())
        if result.returncode:
            refusal = Refusal.parse(result.stderr.splitlines())
            why = refusal.message if refusal else result.stderr.strip()
            raise EngineError(f"{self.container}: {verb[0]}: {why}", hint="deployer logs")

    @property
    def gone(self) -> bool:
        """Whether the data is gone from a directory that this user may look into; False where that is not known."""
        if self.path is None:
            return False
        try:
            return untrusted.read(self.path, NODEINFO) is None
        except (OSError, untrusted.Untrusted):
            return False

    def require_data(self) -> None:
        """Raise ConflictError when the data is gone under a server that runs."""
        if self.gone:
            raise ConflictError(
                f"the data of {self.container} is gone from {self.mount.source} while its server runs",
                hint="restore it there, then deployer restart --cold; for an empty index: deployer up --new-data",
            )

    def uuid(self) -> str | None:
        """The uuid of the data, which its server must answer with; ``None`` when unknown."""
        return parse_uuid(self.read(NODEINFO) or "") or None

    def proof_key(self) -> str | None:
        return self.read(PrivateFile.PROOF_KEY.relative)

    def statistics(self) -> str | None:
        """The statistics of the server, as JSON."""
        return self.read(PrivateFile.STATISTICS.relative)

    def history(self) -> str | None:
        """What happened hour by hour, as JSON."""
        return self.read(PrivateFile.HISTORY.relative)

    def front(self) -> str | None:
        """Who answers clients, as the server wrote it at its start."""
        return self.read(PrivateFile.FRONT.relative)

    def missed(self) -> str | None:
        """What was asked for in vain while the server was offline, as JSON."""
        return self.read(PrivateFile.MISSED.relative)

    def root_password(self) -> Secret | None:
        text = self.read(PrivateFile.ROOT_PASSWORD.relative)
        return Secret(text) if text else None

    def set_root_password(self, password: Secret) -> None:
        """Store the password that the server already has. Raises EngineError."""
        self.write(PrivateFile.ROOT_PASSWORD.relative, password.reveal() + "\n", verb=("secret", "set", "root"))


def _refusal(error: untrusted.Untrusted, directory: Path) -> DeployerError:
    """What is shown of a file that is not as the server makes it."""
    if error.uid >= 0:
        owner = directory.stat()
        return ConflictError(str(error), hint=f"sudo chown -R {owner.st_uid}:{owner.st_gid} {directory}")
    return Refused(str(error), hint=f"remove {error.path}: the server makes a regular file of its own there")
