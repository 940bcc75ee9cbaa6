"""Passwords of a deployment's users: where they are looked for, in which order, and where they are kept.

1. This host's state directory has a file for each user (0600). It holds a password that was given by hand
   (``deployer secret set``), that deployer generated, or that is just being changed.
2. The server directory has a file for root only: the password that our own server generated at its first start.

Root's password belongs into the server directory. While this host keeps a different one, only the server can say which
of them is valid; that one is then kept in the server directory, and this host's copy is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.deployment.server_dir import ServerDir
from deployer.errors import ServerRefused
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.secrets import Secret, generate

ROOT = "root"


@dataclass(frozen=True, kw_only=True)
class Passwords:
    """The passwords of the deployment ``name``; ``server_dir`` is None for one whose data can't be found."""

    name: str
    server_dir: ServerDir | None = None

    def known(self, user: str) -> Secret | None:
        """The password of ``user`` as this host knows it; None when it does not. The server is not asked."""
        return self.stored(user) or self._own(user)

    @property
    def in_doubt(self) -> bool:
        """Whether two different passwords of root are known."""
        stored, own = self.stored(ROOT), self._own(ROOT)
        return stored is not None and own is not None and stored != own

    def valid(self, user: str, url: str) -> Secret | None:
        """The password of ``user``; None when this host does not know it.

        Of two passwords of root, the server at ``url`` decides, which must have proved its identity before.
        """
        stored, own = self.stored(user), self._own(user)
        if stored is None or own is None:
            return stored or own
        if stored == own:
            self.forget(user)
            return own
        return self._accepted((stored, own), url) or stored

    def _accepted(self, passwords: tuple[Secret, ...], url: str) -> Secret | None:
        from deployer.devpi.api import DevpiApi

        with DevpiApi(url) as api:
            for password in passwords:
                with suppress(ServerRefused):
                    api.login(ROOT, password)
                    self.settle(ROOT, password)
                    return password
        return None

    @contextmanager
    def changing(self, user: str, password: Secret) -> Iterator[None]:
        """Store the new ``password`` while the block gives it to the server; what the server refuses is not kept.

        A killed run leaves a password here that is not valid yet, never one on the server that nobody knows.
        Raises ConflictError.
        """
        before = self.stored(user)
        self.store(user, password)
        try:
            yield
        except ServerRefused:
            if before is None:
                self.forget(user)
            else:
                self.store(user, before)
            raise
        self.settle(user, password)

    def stored(self, user: str) -> Secret | None:
        """What this host keeps for ``user``."""
        try:
            text = self._file(user).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return Secret(text) if text else None

    def store(self, user: str, password: Secret) -> None:
        """Keep on this host a password that the server has or is about to get. Raises ConflictError."""
        write_private(self._file(user), password.reveal() + "\n")

    def generate(self, user: str) -> Secret:
        """A new password, stored before the server gets it. Raises ConflictError."""
        password = generate()
        self.store(user, password)
        return password

    def settle(self, user: str, password: Secret) -> None:
        """Move root's valid password to the server directory; passwords of other users stay on this host.

        A directory without a file for it belongs to a server that is not ours. Raises EngineError.
        """
        if self.server_dir is None or (own := self._own(user)) is None:
            return
        if own != password:
            self.server_dir.set_root_password(password)
        self.forget(ROOT)

    def forget(self, user: str) -> None:
        """Remove this host's password of ``user``."""
        self._file(user).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Remove all passwords of the deployment from this host."""
        for path in self._directory.glob("*.password"):
            path.unlink(missing_ok=True)

    def _own(self, user: str) -> Secret | None:
        """What the server directory keeps for ``user``."""
        return self.server_dir.root_password() if user == ROOT and self.server_dir is not None else None

    @property
    def _directory(self) -> Path:
        return state_dir(self.name) / "secrets"

    def _file(self, user: str) -> Path:
        return self._directory / f"{user}.password"
