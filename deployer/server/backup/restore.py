"""Restore a backup into a new server directory, and verify the blobs of a backup.

An unfinished restore is known by the file ``moving``, as an unfinished copy is: no server starts on it, and the next
restore into it begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deployer.protocol import Backup, ExitCode, PrivateFile, Refusal
from deployer.server.backup import database, owners
from deployer.server.backup.repository import CHUNK, Damaged, Repository
from deployer.server.boot.copying import check_space, filling
from deployer.server.devpi.installed import KNOWN, installed
from deployer.server.devpi.stored import FILES, connect, finish_renames
from deployer.server.secret_files import write_private

SECRETS = frozenset({PrivateFile.ROOT_PASSWORD, PrivateFile.SECRET})
"""Private files that a restore may get."""


def restore(repository: Repository, name: str, target: Path, *, secrets: Mapping[str, str]) -> dict[str, object]:
    """Write the data of a backup to ``target``: absent, empty, or an unfinished restore. Raises Refusal."""
    with repository.locked(shared=True), _verifying(repository):
        backup = repository.get(name)
        _check_version(backup)
        with filling(target, f"the backup {backup.name}") as private:
            check_space(target, backup.size)
            for digest, path in repository.files(backup):
                _write(repository.blob(digest), digest, _below(target / FILES, path))
            database.put_together(repository, backup.pieces, target / backup.database)
            if backup.lost or backup.left_out:
                with connect(target / backup.database) as connection:
                    finish_renames(connection)
            for small, text in backup.small.items():
                write_private(target / small, text)
            if backup.owners_sha256:
                owners.put_back(private.owners, repository.read(backup.owners_sha256))
            for secret in SECRETS & secrets.keys():
                write_private(private.directory / secret, secrets[secret])
            if PrivateFile.ROOT_PASSWORD not in secrets:
                write_private(private.reset_root, "")
    return backup.summary


def _check_version(backup: Backup) -> None:
    """Refuse data of another major version of devpi-server, before anything is written."""
    maker = next((known.major for known in KNOWN if known.database == backup.database), "")
    if maker != installed().major:
        raise Refusal(
            f"the backup {backup.name} is of devpi-server {maker}, and this one is {installed().major}",
            hint=f'set server.version: "{maker}" in the profile',
            code=ExitCode.REFUSED,
        )


def _below(directory: Path, path: str) -> Path:
    parts = path.split("/")
    if not all(parts) or set(parts) & {".", ".."} or "\0" in path:
        raise Damaged(f"invalid path {path[:80]!r}")
    return directory.joinpath(*parts)


def _write(blob: Path, digest: str, target: Path) -> None:
    """Write a file from its blob. Raises Damaged."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as writer:
        _read(blob, digest, writer.write)


def _read(blob: Path, digest: str, write: Callable[[bytes], object]) -> None:
    found = hashlib.sha256()
    try:
        with blob.open("rb") as reader:
            while chunk := reader.read(CHUNK):
                found.update(chunk)
                write(chunk)
    except FileNotFoundError:
        raise Damaged(f"blob {digest} is missing") from None
    if found.hexdigest() != digest:
        raise Damaged(f"blob {digest} has another content than its name says")


def verify(repository: Repository, name: str) -> dict[str, object]:
    """Read all that a backup needs, and compare its hashes; its first wheel is named. Raises Refusal."""
    with repository.locked(shared=True), _verifying(repository):
        backup = repository.get(name)
        files = list(repository.files(backup))
        for digest in {*backup.blobs, *(digest for digest, _ in files)}:
            _read(repository.blob(digest), digest, len)
    wheels = (path for _, path in files if path.endswith(".whl") and path.isprintable())
    return {**backup.summary, "wheel": next(wheels, "")}


@contextlib.contextmanager
def _verifying(repository: Repository) -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        raise Refusal(
            f"{repository.directory}: {error}",
            hint="restore an earlier backup: deployer backup list",
            code=ExitCode.VERIFICATION,
        ) from None
