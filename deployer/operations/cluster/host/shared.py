"""What all members of a cluster on this host share: their secret, and root's password. Files of the state directory."""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.deployment.passwords import ROOT, Passwords
from deployer.deployment.server_dir import ServerDir
from deployer.errors import DeployerError, ServerRefused
from deployer.files import make_private, replacing, write_private
from deployer.host.state_dir import state_dir
from deployer.operations.cluster.host.derived import PASSWORD, SECRET
from deployer.protocol import PrivateFile
from deployer.secrets import Secret, generate

_SHORTEST = 32
"""Characters of the shortest secret that a server takes."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Of the cluster ``name``."""

    name: str

    @property
    def directory(self) -> Path:
        return state_dir(self.name) / "members"

    def make(self, former: ServerDir | None) -> None:
        """Make them, unless they are there. ``former``: the data of a server that becomes the primary.

        Its logins and tokens stay valid. Raises ConflictError, ServerRefused when root's password is not known.
        """
        if self._read(SECRET) is None:
            found = former.read(PrivateFile.SECRET.relative) if former is not None else None
            self._write(SECRET, found if found and len(found) >= _SHORTEST else secrets.token_urlsafe(48))
        if self._read(PASSWORD) is None:
            self._write(PASSWORD, self._first_password(former).reveal())

    def _first_password(self, former: ServerDir | None) -> Secret:
        if former is None or former.uuid() is None:
            return generate()
        known = Passwords(name=self.name, server_dir=former).known(ROOT)
        if known is None:
            raise ServerRefused(
                "root's password is not known: this data directory was made by another program",
                hint="store it: deployer secret set root",
            )
        return known

    def password(self, primary: ServerDir | None) -> Secret | None:
        """Root's password, as the primary has it; it is kept for the next primary."""
        found = None
        with suppress(DeployerError):
            found = primary.root_password() if primary is not None else None
        kept = self._read(PASSWORD)
        if found is not None and found.reveal() != kept:
            self._write(PASSWORD, found.reveal())
        return found or (Secret(kept) if kept else None)

    @staticmethod
    def directory_of(member: str) -> Path:
        """What :meth:`give` makes."""
        return state_dir(member) / "given"

    def give(self, member: str) -> Path:
        """Give a container what it reads: a directory of its own, which no other user of this host can enter.

        The files are open below it, since the server may have another uid.
        """
        directory = self.directory_of(member)
        make_private(directory.parent)
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        for name in (SECRET, PASSWORD):
            content, path = (self._read(name) or "").encode() + b"\n", directory / name
            if not path.exists() or path.read_bytes() != content:
                with replacing(path, exact=True) as stream:
                    stream.write(content)
        return directory

    def forget(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _read(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def _write(self, name: str, text: str) -> None:
        write_private(self.directory / name, f"{text}\n")
